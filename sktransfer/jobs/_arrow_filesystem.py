"""The objects of a bucket as a file system of pyarrow, for data sets to read by."""

from typing import Any

from pyarrow import PythonFile, fs

from .._object_store import NoSuchObjectError
from ._remote_file import RemoteFile


def bucket_filesystem(bucket: Any) -> fs.PyFileSystem:
    """Return a file system that reads the objects of a bucket, and does nothing else."""
    return fs.PyFileSystem(_BucketHandler(bucket))


class _BucketHandler(fs.FileSystemHandler):
    def __init__(self, bucket: Any):
        self._bucket = bucket

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BucketHandler) and self._bucket is other._bucket

    def __ne__(self, other: object) -> bool:
        return not self == other

    def get_type_name(self) -> str:
        return "sktransfer"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        try:
            status = self._bucket.head(path.lstrip("/"))
        except NoSuchObjectError:
            return fs.FileInfo(path, fs.FileType.NotFound)
        return fs.FileInfo(path, fs.FileType.File, size=status.size)

    def open_input_file(self, path: str) -> PythonFile:
        return PythonFile(RemoteFile(self._bucket, path.lstrip("/")), mode="r")

    open_input_stream = open_input_file

    # what is only read needs none of these

    def get_file_info_selector(self, selector: Any) -> list[fs.FileInfo]:
        raise self._refusal("list")

    def create_dir(self, path: str, recursive: bool) -> None:
        raise self._refusal("create")

    def delete_dir(self, path: str) -> None:
        raise self._refusal("delete")

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        raise self._refusal("delete")

    def delete_root_dir_contents(self) -> None:
        raise self._refusal("delete")

    def delete_file(self, path: str) -> None:
        raise self._refusal("delete")

    def move(self, src: str, dest: str) -> None:
        raise self._refusal("move")

    def copy_file(self, src: str, dest: str) -> None:
        raise self._refusal("copy")

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        raise self._refusal("write")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise self._refusal("write")

    def _refusal(self, what: str) -> OSError:
        return OSError(f"a job's rows are only read by this file system; it does not {what}")
