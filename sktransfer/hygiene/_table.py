"""A list of frozen records that prints as a table and becomes a data frame."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

Record = TypeVar("Record")

_SHOWN = 20  # rows that are printed: a screen
_WIDEST = 48  # letters of a cell; of a long path the end tells more than the beginning


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
        """Return the first line of the print: what the report says in sum."""
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
