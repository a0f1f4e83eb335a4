"""job.json: what a job computes of which images, and a fingerprint of it.

It is plain JSON. Reading it runs no code, and loads no network.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._folder import JobFolder

NAME = "job.json"
FORMAT = 1
# rows that pass the network before they are written; a row group of a shard
CHUNK = 2048
DTYPES = ("float32", "float16")
_MANIFEST = re.compile(r"manifest-[0-9a-f]{8}/")


@dataclass(frozen=True)
class JobRecord:
    """The content of a job.json.

    Attributes
    ----------
    transformer : dict
        The parameters of the transformer.
    row : dict
        Depths, widths and the ingredients of the key of a row; `dtype` of what is written.
    images : dict
        Number and digest of the rows of the manifest, types of the columns, and the folder
        to which relative paths belong.
    rows_per_shard : int
    manifest : str
        The folder of the shards' parts of the manifest. It is no part of the fingerprint.
    """

    transformer: Mapping[str, Any]
    row: Mapping[str, Any]
    images: Mapping[str, Any]
    rows_per_shard: int
    manifest: str

    @property
    def n_images(self) -> int:
        return self.images["n_rows"]

    @property
    def n_shards(self) -> int:
        return -(-self.n_images // self.rows_per_shard)

    def n_rows_of(self, shard: int) -> int:
        """Return the number of images of a shard."""
        return min(self.rows_per_shard, self.n_images - shard * self.rows_per_shard)

    @property
    def identity(self) -> dict[str, Any]:
        """Return what another job must be equal in to be the same job."""
        return {
            "format": FORMAT,
            "transformer": dict(self.transformer),
            "row": dict(self.row),
            "images": dict(self.images),
            "rows_per_shard": self.rows_per_shard,
            "images_at_once": CHUNK,
        }

    @property
    def fingerprint(self) -> str:
        """Return a digest of `identity`."""
        text = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def to_json(self) -> bytes:
        """Return the content of the file."""
        values = {**self.identity, "manifest": self.manifest, "fingerprint": self.fingerprint}
        return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"


def read_record(folder: JobFolder) -> JobRecord:
    """Return the record of a job's folder.

    Raises
    ------
    FileNotFoundError
        When there is no job.json.
    ValueError
        When it is damaged, or of another version.
    """
    try:
        content = folder.read(NAME)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder.name} holds no {NAME}: out must be the folder of an ExtractionJob"
        ) from None
    try:
        values = json.loads(content)
        if values["format"] != FORMAT or values["images_at_once"] != CHUNK:
            raise ValueError(
                f"{folder.name}/{NAME} is of another version of sktransfer (format "
                f"{values['format']}, here {FORMAT}); use that version, or another folder"
            )
        names = ("transformer", "row", "images", "rows_per_shard", "manifest")
        record = JobRecord(**{name: values[name] for name in names})
        is_whole = record.fingerprint == values["fingerprint"]
        wrong = _first_wrong(record)
    except (
        json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, RecursionError
    ) as error:  # fmt: skip
        raise ValueError(f"{folder.name}/{NAME} can't be read: {error!r}") from None
    if not is_whole:
        raise ValueError(
            f"{folder.name}/{NAME} was changed: its fingerprint is not that of its content"
        )
    if wrong is not None:
        raise ValueError(
            f"{folder.name}/{NAME} can't be read: {wrong[0]} is {_shown(wrong[1])}, which no job "
            "writes"
        )
    return record


def _first_wrong(record: JobRecord) -> tuple[str, Any] | None:
    """Return name and value of the first part that no job has: others may have written it."""
    row, images = record.row, record.images
    allowed = {
        "transformer": (record.transformer, isinstance(record.transformer, dict)),
        "rows_per_shard": (record.rows_per_shard, _is_count(record.rows_per_shard)),
        "images.n_rows": (images["n_rows"], _is_count(images["n_rows"])),
        "images.relative_to": (
            images["relative_to"], isinstance(images["relative_to"], str | None)
        ),
        "row.dtype": (row["dtype"], row["dtype"] in DTYPES),
        "row.widths": (
            row["widths"],
            isinstance(row["widths"], list)
            and len(row["widths"]) == len(row["ingredients"]) > 0
            and all(map(_is_count, row["widths"])),
        ),
        # a name within the folder
        "manifest": (
            record.manifest,
            isinstance(record.manifest, str) and _MANIFEST.fullmatch(record.manifest) is not None,
        ),
    }  # fmt: skip
    return next(
        ((name, value) for name, (value, is_allowed) in allowed.items() if not is_allowed), None
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40


def check_same(folder: JobFolder, there: Any, here: Any, what: str) -> None:
    """Raise ValueError that names each value in which two records differ."""
    lines = [
        f"  {name}: {_shown(old)} there, {_shown(new)} here"
        for name, old, new in differences(there, here)
    ]
    if lines:
        raise ValueError(f"{folder.name} {what}:\n" + "\n".join(lines))


def differences(there: Any, here: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name of each value that differs, and both values."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*there, *here]):
            inner = f"{name}.{key}" if name else str(key)
            yield from differences(there.get(key), here.get(key), inner)
    elif (
        isinstance(there, list)
        and isinstance(here, list)
        and len(there) == len(here)
        and any(isinstance(value, (Mapping, list)) for value in there)
    ):
        for i, (old, new) in enumerate(zip(there, here, strict=True)):
            yield from differences(old, new, f"{name}[{i}]")
    elif there != here or type(there) is not type(here):
        yield name, there, here


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
