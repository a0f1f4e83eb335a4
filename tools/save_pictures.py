"""Run examples and save their figures as the pictures that the pages in docs/ show.

    python tools/save_pictures.py                    all of them
    python tools/save_pictures.py plot_depth_curve   those of some examples

Warnings are errors. Prints the seconds of each example.
"""

import argparse
import os
import runpy
import sys
import time
import warnings
from pathlib import Path

import matplotlib as mpl

ROOT = Path(__file__).parents[1]
PICTURES = {  # the figures of an example, in the order in which it makes them
    "plot_choosing": ("plot_strategies.png", "plot_label_curve.png"),
    "plot_depth_curve": ("plot_depth_curve.png",),
    "plot_drift": ("plot_drift.png",),
    "plot_training_curves": ("plot_training_curves.png",),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help=", ".join(PICTURES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pictures")
    arguments = parser.parse_args()
    unknown = set(arguments.examples) - set(PICTURES)
    if unknown:
        parser.error(
            f"no pictures of {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}"
        )

    warnings.simplefilter("error")
    mpl.use("Agg")
    from matplotlib import pyplot

    pyplot.show = lambda: None  # Agg warns that it shows nothing
    sys.path.insert(0, os.fspath(ROOT / "examples"))
    for example in arguments.examples or PICTURES:
        started = time.perf_counter()
        runpy.run_path(os.fspath(ROOT / "examples" / f"{example}.py"), run_name="__main__")
        print(f"{example}: {time.perf_counter() - started:.0f} s", flush=True)
        for number, picture in zip(pyplot.get_fignums(), PICTURES[example], strict=False):
            pyplot.figure(number).savefig(arguments.out / picture, dpi=110)
        pyplot.close("all")


if __name__ == "__main__":
    main()
