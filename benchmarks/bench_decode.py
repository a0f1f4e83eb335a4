"""Pillow is fast enough to be the only decoder, and gives torchvision's pixels.

    python benchmarks/bench_decode.py folder

Decodes the JPEG files of ``folder/<class>/<image>`` to RGB on one core, from bytes
in memory, several times in turns: with the package, with Pillow alone, and with
torchvision's decoder. Files with a colour profile, which torchvision ignores and
the package applies, are left out.

Claims: torchvision's decoder is less than 2 times as fast as the package, which is
not worth a second decoder to trust with hostile files; the package's pixels differ
from torchvision's by at most 1 of 255 levels. A minute on one core.
"""

import argparse
import io
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from _report import write_csv
from sktransfer import load_image_folder
from sktransfer.images._decode import decode_bytes


def with_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def with_torchvision(data):
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, ImageReadMode.RGB).permute(1, 2, 0).numpy()


def as_extracted(data):
    """Return pixels as an extraction takes them: of four values, in Pillow's own memory."""
    return decode_bytes(data, padded=True)


DECODERS = {"sktransfer": as_extracted, "Pillow": with_pillow, "torchvision": with_torchvision}


def plain_jpegs(folder):
    """Return the content of the JPEG files that have no colour profile and lie upright."""
    contents = []
    for path in load_image_folder(folder)[0]:
        with Image.open(path) as image:
            upright = image.getexif().get(0x0112, 1) == 1
            if image.format == "JPEG" and upright and "icc_profile" not in image.info:
                contents.append(Path(path).read_bytes())
    return contents


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder/<class>/<image>")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    contents = plain_jpegs(arguments.folder)

    furthest = max(
        int(np.abs(decode_bytes(data).astype(int) - with_torchvision(data)).max())
        for data in contents
    )
    rates = {name: [] for name in DECODERS}
    for _ in range(arguments.repeats):
        for name, decode in DECODERS.items():
            started = time.perf_counter()
            for data in contents:
                decode(data)
            rates[name].append(len(contents) / (time.perf_counter() - started))
    lines = []
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates["sktransfer"], strict=True)]
        line = {
            "decoder": name,
            "images": len(contents),
            "images_per_s": round(statistics.median(values)),
            "times_sktransfer": round(statistics.median(ratios), 2),
            "least": round(min(ratios), 2),
            "most": round(max(ratios), 2),
        }
        lines.append(line)
        print(
            f"{name:<12}{line['images_per_s']:>6} images/s   {line['times_sktransfer']:.2f} x "
            f"sktransfer, from {line['least']:.2f} to {line['most']:.2f}"
        )
    print(f"largest difference to torchvision: {furthest} of 255 levels, {len(contents)} images")
    write_csv("bench_decode", lines)
    assert lines[-1]["times_sktransfer"] < 2
    assert furthest <= 1


if __name__ == "__main__":
    main()
