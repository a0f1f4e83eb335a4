"""pyarrow, which the extra ``sktransfer[jobs]`` installs."""

from typing import Any


def import_pyarrow() -> Any:
    """Return pyarrow, or raise ImportError that names the extra."""
    try:
        import pyarrow
    except ImportError:
        raise ImportError(
            "sktransfer.jobs reads and writes Parquet files by pyarrow: "
            "pip install 'sktransfer[jobs]'"
        ) from None
    return pyarrow
