"""Printed tables: columns of text, and lists of records."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar


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


Record = TypeVar("Record")

_SHOWN = 20  # rows that are printed: a screen
_WIDEST = 48  # characters of a cell; of a long path the end is shown


class Table(Sequence, Generic[Record]):
    """Base of the reports: a sequence of records of one dataclass, never changed."""

    _record: type  # the dataclass, whose fields are the columns

    def __init__(self, records: Sequence[Record]):
        self._records = tuple(records)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index):
        return self._records[index]

    def __repr__(self) -> str:
        names = [field.name for field in fields(self._record)]
        lines = [names, *([_cell(getattr(row, n)) for n in names] for row in self[:_SHOWN])]
        widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
        text = [self._headline()]
        if self:
            text += [
                "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
                for line in lines
            ]
        if len(self) > _SHOWN:
            text.append(f"... and {len(self) - _SHOWN} more")
        return "\n".join(line.rstrip() for line in text)

    def _headline(self) -> str:
        """Return the first line of the printed report: its summary."""
        raise NotImplementedError

    def to_frame(self):
        """Return the records as a pandas DataFrame, one row each.

        Raises
        ------
        ImportError
            When pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'sktransfer[hygiene]'") from None
        names = [field.name for field in fields(self._record)]
        rows = [[getattr(row, name) for name in names] for row in self]
        return pandas.DataFrame(rows, columns=names)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple):
        return _shorten(", ".join(map(str, value)), keep_end=False)
    return _shorten(str(value), keep_end=True)


def _shorten(text: str, keep_end: bool) -> str:
    if len(text) <= _WIDEST:
        return text
    return "..." + text[3 - _WIDEST :] if keep_end else text[: _WIDEST - 3] + "..."
