"""Write the golden rows: what known weights give for a few drawn images.

    python tests/backbones/make_golden_rows.py [more.safetensors ...]

Run it where the weights changed on purpose, or to add a backbone file, and look at
what changed in ``golden_rows.json``. Each entry has the digest of its weights, so
that rows of other weights are not compared.
"""

import json
import sys
from pathlib import Path

import torch

from sktransfer.backbones._registry import load_backbone

FILE = Path(__file__).with_name("golden_rows.json")
N_VALUES = 16  # of each row, evenly spaced: enough to tell, short enough to read


def drawn_images(size):
    """Draw a gradient, a disc and stripes: uint8 (3, 3, size, size), no decoder involved."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    gradient = torch.stack([(x + 1) / 2, (y + 1) / 2, (2 - x - y) / 4])
    disc = (x**2 + y**2 < 0.4).double() * torch.tensor([0.9, 0.4, 0.1]).view(3, 1, 1) + 0.05
    stripes = ((x * 4).floor() % 2) * torch.tensor([0.2, 0.7, 0.9]).view(3, 1, 1)
    return (torch.stack([gradient, disc, stripes]) * 255).round().to(torch.uint8)


def rows(backbone):
    """Return a few values of the pooled row of every image, at every depth."""
    images = drawn_images(backbone.spec.input.size)
    found = {}
    with torch.inference_mode():
        for depth in range(1, len(backbone.stages) + 1):
            values = backbone.frozen(depth, "avg")(images)
            chosen = torch.linspace(0, values.shape[1] - 1, N_VALUES).round().long()
            found[str(depth)] = [[round(v, 6) for v in row] for row in values[:, chosen].tolist()]
    return found


def main(paths):
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in ["mini", *paths]:
        backbone = load_backbone(name)
        golden[Path(name).name] = {"digest": backbone.spec.digest, "rows": rows(backbone)}
    FILE.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"wrote {', '.join(golden)} to {FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])
