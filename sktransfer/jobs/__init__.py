"""Rows of more images than one machine computes, and rows that several machines share."""

from ._export_rows import export_rows
from ._extraction_job import ExtractionJob
from ._import_rows import ImportedRows, import_rows
from ._load_rows import load_rows
from ._status import JobStatus

__all__ = [
    "ExtractionJob",
    "ImportedRows",
    "JobStatus",
    "export_rows",
    "import_rows",
    "load_rows",
]
