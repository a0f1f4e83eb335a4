"""Columns of text."""

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a header; numbers, formatted by the caller, stand at the right."""
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [
        all(row[column][:1].isdigit() or row[column] == "-" for row in cells[1:])
        for column in range(len(header))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def count(number: int | None, unit: str = "") -> str | None:
    """Return a large number in three digits: 11.7 M."""
    if number is None:
        return None
    for prefix, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            digits = max(0, 3 - len(str(number // size)))
            return f"{number / size:.{digits}f} {prefix}{unit}"
    return f"{number} {unit}".rstrip()


def _text(cell: object) -> str:
    return "-" if cell is None else str(cell)
