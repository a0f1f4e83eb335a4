"""Claim: no damaged file crashes, hangs or fills the memory of the decoder.

    python benchmarks/fuzz_decode.py [--files 10000] [--seed 0]

Draws pictures in every format and mode, damages copies of them (bits flipped, bytes
set to extremes, parts removed, repeated, cut off or swapped with another file's), and
reads each. Asserts for every file a picture or a DecodeError of one line, less than
1 s of processor time, no warning, and for all of them less than 1 GB of memory above
that of the start. Writes the file that breaks the claim, and ends; a hang of 60 s ends
it with a traceback. 10,000 files take a few minutes on one core.
"""

import argparse
import collections
import faulthandler
import io
import pathlib
import platform
import resource
import time
import warnings

import numpy as np
import PIL
from PIL import Image, ImageCms, features

from sktransfer.images._decode import DecodeError, decode_bytes

MAX_SECONDS = 1.0
MAX_MEMORY = 2**30  # bytes
EXTREMES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)


def draw_files(rng):
    """Return whole files of every format and of most modes."""
    noise = rng.integers(0, 256, (48, 61, 4), dtype=np.uint8)
    noise[16:] = 40
    colour, alpha, grey = (Image.fromarray(noise[..., n]) for n in (slice(3), slice(4), 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

    def frames():  # new ones each time: saving leaves its settings in an image
        return {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}

    kinds = [
        *[
            (colour, "JPEG", {"exif": exif, "icc_profile": profile, "subsampling": n})
            for n in (0, 2)
        ],
        (colour, "JPEG", {"progressive": True}),
        (colour, "MPO", frames()),
        (colour.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"restart_marker_rows": 1}),
        *[
            (image, "PNG", {"exif": exif, "icc_profile": profile})
            for image in (alpha, colour, grey)
        ],
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("1"), "PNG", {}),
        (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
        *[(colour, format, frames()) for format in ("PNG", "GIF", "WEBP", "TIFF")],
        (alpha, "WEBP", {"exif": exif, "icc_profile": profile}),
        (colour, "WEBP", {"lossless": True}),
        *[(image, "BMP", {}) for image in (colour, grey, colour.convert("P"))],
        *[
            (colour, "TIFF", {"compression": name, "exif": exif})
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ],
        *[(grey.convert("1"), "TIFF", {"compression": name}) for name in ("group3", "group4")],
        (Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF", {}),
        (Image.fromarray(noise[..., 0].astype(np.int32)), "TIFF", {}),
        (colour.convert("CMYK"), "TIFF", {"icc_profile": profile}),
        *[(image, "PPM", {}) for image in (colour, grey, grey.convert("1"))],
    ]
    if features.check("avif"):
        kinds += [(alpha, "AVIF", {"exif": exif}), (colour, "AVIF", {"subsampling": "4:4:4"})]
    files = [b"P3 2 2 255 1 2 3 4 5 6 7 8 9 10 11 12\n"]
    for image, format, options in kinds:
        file = io.BytesIO()
        image.copy().save(file, format, **options)
        files.append(file.getvalue())
    return files


def damage(data, rng, files):
    """Return a copy of `data` with one to eight changes, most of them near its start."""
    data = bytearray(data)
    for _ in range(int(2 ** rng.uniform(0, 3))):
        if not data:
            break
        reach = len(data) if rng.random() < 0.4 else min(len(data), 256)
        place, length = int(rng.integers(reach)), int(2 ** rng.uniform(0, 8))
        match rng.integers(7):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.choice(EXTREMES))
            case 2:
                data[place : place + 4] = rng.bytes(4)
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = data[place : place + length]
            case 5:
                other = files[rng.integers(len(files))]
                data[place : place + length] = other[place : place + length]
            case 6:
                del data[int(rng.integers(len(data))) :]
    return bytes(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    files = draw_files(rng)
    warnings.simplefilter("error")
    for data in files:
        decode_bytes(data)
    outcomes = collections.Counter()
    slowest = 0.0
    before = peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(options.files):
        data = damage(files[rng.integers(len(files))], rng, files)
        faulthandler.dump_traceback_later(60, exit=True)
        start = time.process_time()
        try:
            pixels = decode_bytes(data, padded=bool(number % 2))
            broken = pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.size == 0
            outcomes["picture"] += 1
        except DecodeError as error:
            broken = not str(error) or "\n" in str(error)
            outcomes["error"] += 1
        except BaseException:
            pathlib.Path("fuzz_decode.broken").write_bytes(data)
            raise
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory = (peak - before) * 1024  # Linux counts in KiB
        if broken or seconds > MAX_SECONDS or memory > MAX_MEMORY:
            pathlib.Path("fuzz_decode.broken").write_bytes(data)
            raise SystemExit(
                f"file {number}: {seconds:.2f} s, {memory / 2**20:.0f} MiB, broken={broken}; "
                "kept as fuzz_decode.broken"
            )
    faulthandler.cancel_dump_traceback_later()
    print(
        f"{options.files} files, seed {options.seed}: {dict(outcomes)}; slowest {slowest:.2f} s, "
        f"{(peak - before) / 1024:.0f} MiB above the start; Pillow {PIL.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}"
    )


if __name__ == "__main__":
    main()
