"""Tables for terminals and notebooks: columns of text, and lists of records."""

import html
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows under a header; numbers, formatted by the caller, stand at the right."""
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [_is_numeric([row[column] for row in cells[1:]]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


# Grey borders and inherited colours stand on light and dark pages alike.
_STYLE = """<style>
.sktransfer-table {overflow-x: auto;}
.sktransfer-table table {border-collapse: collapse; margin: 0.5em 0;}
.sktransfer-table caption {caption-side: top; text-align: left; padding: 0.4em 0;}
.sktransfer-table :is(th, td) {
  border-bottom: 1px solid rgba(128, 128, 128, 0.4); padding: 0.2em 1em 0.2em 0.3em;
  text-align: left !important;}
.sktransfer-table :is(th, td).number {
  text-align: right !important; font-variant-numeric: tabular-nums; white-space: nowrap;}
</style>"""


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "", after: str = ""
) -> str:
    """Return `table` for a notebook; the texts of cells are escaped."""
    cells = [[_text(cell) for cell in row] for row in rows]
    right = [_is_numeric([row[column] for row in cells]) for column in range(len(header))]

    def row_of(texts: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' * at_right}>{html.escape(text)}</{tag}>"
            for text, at_right in zip(texts, right, strict=True)
        )

    body = "".join(f"<tr>{row_of(row, 'td')}</tr>" for row in cells)
    head = f"<thead><tr>{row_of(header, 'th')}</tr></thead>" if rows else ""
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    below = f"<p>{html.escape(after)}</p>" if after else ""
    return (
        f'{_STYLE}<div class="sktransfer-table"><table>{title}{head}<tbody>{body}</tbody></table>'
        f"{below}</div>"
    )


def count(number: int | None, unit: str = "") -> str | None:
    """Return a large number in three digits: 11.7 M."""
    if number is None:
        return None
    for prefix, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            digits = max(0, 3 - len(str(number // size)))
            return f"{number / size:.{digits}f} {prefix}{unit}"
    return f"{number} {unit}".rstrip()


def _is_numeric(texts: Sequence[str]) -> bool:
    return all(text[:1].isdigit() or text == "-" for text in texts)


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

    def _repr_html_(self) -> str:
        names = [field.name for field in fields(self._record)]
        rows = [[_cell(getattr(row, name)) for name in names] for row in self[:_SHOWN]]
        left = len(self) - _SHOWN
        return html_table(names, rows, self._headline(), f"... and {left} more" if left > 0 else "")

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
