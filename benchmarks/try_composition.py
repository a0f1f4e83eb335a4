"""Claim: every block of docs/composition.md runs, and an image passes once for each depth it needs.

    python benchmarks/try_composition.py                    # the newest versions are installed
    python benchmarks/try_composition.py --column lowest    # the lowest are

Runs each section of the page on 24 drawn images and an empty store, and writes a column of the
table at its end: the versions that were tried, and how many images passed the frozen network. On
a CPU, a minute at most; the forward passes are a multiple of 24 and the same on every machine.
"""

import argparse
import ast
import contextlib
import datetime
import os
import platform
import re
import tempfile
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import sklearn
from PIL import Image, ImageDraw

from sktransfer import count_forward_passes

PAGE = Path(__file__).parents[1] / "docs" / "composition.md"
N_IMAGES = 24
_TABLE = "## What was tried with which version\n"
_COLUMNS = ("newest", "lowest", "passes")


@dataclass(frozen=True)
class Section:
    """A heading of the page with the code below it."""

    title: str
    code: str

    @property
    def modules(self) -> list[str]:
        """Name the packages that are imported, but this one and NumPy."""
        names = set()
        for node in ast.walk(ast.parse(self.code)):
            if isinstance(node, ast.Import):
                names |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
        return sorted(names - {"sktransfer", "numpy"}) or ["sklearn"]

    def run(self, before: str) -> int:
        """Run the lines `before` and the section on an empty store; return the forward passes."""
        names: dict = {}
        with count_forward_passes() as counter, sklearn.config_context():
            exec(compile(before, f"{PAGE.name}: first lines", "exec"), names)
            exec(compile(self.code, f"{PAGE.name}: {self.title}", "exec"), names)
        return counter.computed


def read_page() -> tuple[str, list[Section]]:
    """Return the first lines, and the sections that have code."""
    text = PAGE.read_text(encoding="utf-8").split(_TABLE)[0]
    first, *parts = re.split(r"^#{2,3} (?=.)", text, flags=re.MULTILINE)
    sections = [
        Section(part.splitlines()[0], block)
        for part in parts
        for block in ["\n".join(re.findall(r"```python\n(.*?)```", part, flags=re.DOTALL))]
        if block
    ]
    return re.search(r"```python\n(.*?)```", first, flags=re.DOTALL).group(1), sections


@contextlib.contextmanager
def drawn_photographs():
    """Work in a folder of its own, with photographs/<class>/<image> and an empty store."""
    rng = np.random.default_rng(0)
    before = os.environ.get("SKTRANSFER_CACHE")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for i in range(N_IMAGES):
            kind = ("disc", "square")[i % 2]
            image = Image.fromarray(rng.integers(0, 90, (48, 48, 3), dtype=np.uint8))
            left, top = (int(value) for value in rng.integers(2, 16, 2))
            colour = tuple(int(value) for value in rng.integers(140, 255, 3))
            pen = ImageDraw.Draw(image)
            draw = pen.ellipse if kind == "disc" else pen.rectangle
            draw([left, top, left + 24, top + 24], fill=colour)
            Path("photographs", kind).mkdir(parents=True, exist_ok=True)
            image.save(Path("photographs", kind, f"{i:02d}.png"))
        os.environ["SKTRANSFER_CACHE"] = str(Path(folder, "store"))
        try:
            yield
        finally:
            del os.environ["SKTRANSFER_CACHE"]
            if before is not None:
                os.environ["SKTRANSFER_CACHE"] = before


def versions(modules: list[str]) -> str:
    """Return "package version" of what a section imports."""
    distributions = packages_distributions()
    names = sorted({distributions[module][0] for module in modules})
    return ", ".join(f"{name} {version(name)}" for name in names)


def read_table() -> dict[str, dict[str, str]]:
    """Return what is in the page: for each section, its cells by column."""
    table = PAGE.read_text(encoding="utf-8").split(_TABLE)[1]
    cells = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {row[0]: dict(zip(_COLUMNS, row[1:], strict=True)) for row in cells[1:]}


def write_table(rows: dict[str, dict[str, str]]) -> None:
    """Put the table at the end of the page."""
    above = PAGE.read_text(encoding="utf-8").split(_TABLE)[0]
    lines = [
        "Written by `python benchmarks/try_composition.py`, once for each set of versions.",
        f"*Passes* are forward passes: how often one of {N_IMAGES} images passed a frozen network.",
        "The store is empty at the start of each section.",
        "",
        " | ".join(["| what", *_COLUMNS]) + " |",
        "|" + "---|" * (1 + len(_COLUMNS)),
        *(f"| {what} | {' | '.join(row[c] for c in _COLUMNS)} |" for what, row in rows.items()),
    ]
    PAGE.write_text(above + _TABLE + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {PAGE}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--column", choices=_COLUMNS[:-1], default=_COLUMNS[0])
    column = parser.parse_args().column
    before, sections = read_page()
    known = read_table()
    day = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    shared = versions(["numpy", "skorch", "torch"])
    tried = {"all": (f"Python {platform.python_version()}, {shared}, on {day}", "")}
    for section in sections:
        with drawn_photographs():
            passes = section.run(before)
        assert passes % N_IMAGES == 0, f"{section.title}: {passes}, some passed again, or never"
        tried[section.title] = (versions(section.modules), str(passes))
        print(section.title, *tried[section.title])
    rows = {}
    for what, (used, passes) in tried.items():
        rows[what] = {"newest": "", "lowest": "", **known.get(what, {}), column: used}
        rows[what]["passes"] = passes
    write_table(rows)


if __name__ == "__main__":
    main()
