"""The key of a stored row: one record of every ingredient, hashed from plain values.

A stored row equals the row that the installed code would compute now, for the bytes that
the caller holds now. So a key names everything that a row is computed from. Nothing else in
the package decides what a key is made of: a new ingredient is a new field here.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

COMMON_SIZE = 16  # bytes that name everything but the image

# Raise it when the same ingredients would give another row.
# 3: rows of format 2 may have been computed by two threads that changed one network.
FORMAT = 3


@dataclass(frozen=True)
class RowIngredients:
    """Everything that a row depends on, beside the image; plain values only.

    Attributes
    ----------
    weights : str
        Digest of every parameter and buffer, and of the architecture's name and arguments.
    code : str
        Digest of what the network computes with them, stage by stage.
    stages : tuple of str
        Names of all stages.
    n_stages : int
        How many of them the image passes.
    layout : mapping
        What an activation is made of, such as the number of prefix tokens.
    pooling : str or None
        How the activation becomes a row; None where the activation itself is stored.
    input : mapping
        The numbers of the preprocessing.
    view : str or None
        Names the random change of the image; None where there is none.
    image_code : mapping
        Versions of the package's own decoding and preprocessing.
    arithmetic : mapping
        Precision, kind of device, and how float32 products are computed there.
    libraries : mapping
        Versions of the libraries whose change would change a row by more than 1e-5.
    """

    weights: str
    code: str
    stages: tuple[str, ...]
    n_stages: int
    layout: Mapping[str, Any]
    pooling: str | None
    input: Mapping[str, Any]
    view: str | None
    image_code: Mapping[str, Any]
    arithmetic: Mapping[str, Any]
    libraries: Mapping[str, Any]


def common_key(ingredients: RowIngredients) -> bytes:
    """Return the first half of the keys of all images."""
    values = {field.name: getattr(ingredients, field.name) for field in fields(ingredients)}
    return hashlib.blake2b(_encoded([FORMAT, values]), digest_size=COMMON_SIZE).digest()


def name_of(*values: Any) -> bytes:
    """Return 16 bytes that name plain values, as those of a file's version name the file."""
    return hashlib.blake2b(_encoded(values), digest_size=COMMON_SIZE).digest()


def row_key(common: bytes, digest: bytes) -> bytes:
    """Return the key of one image's row."""
    return common + digest


def _encoded(value: Any) -> bytes:
    """Return bytes that differ wherever two plain values differ, in type too.

    Each value is its kind, its length and its content, so that no two sequences of values
    run together to the same bytes.
    """
    kind, content = _content(value)
    return kind + struct.pack("<Q", len(content)) + content


def _content(value: Any) -> tuple[bytes, bytes]:
    if value is None:
        return b"n", b""
    if isinstance(value, bool):
        return b"b", bytes([value])
    if isinstance(value, int):
        return b"i", str(int(value)).encode()
    if isinstance(value, float):
        return b"f", struct.pack("<d", value)
    if isinstance(value, str):
        return b"s", value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return b"y", value
    if isinstance(value, (tuple, list)):
        return b"l", b"".join(map(_encoded, value))
    if isinstance(value, Mapping):
        items = sorted((_encoded(name), _encoded(item)) for name, item in value.items())
        return b"m", b"".join(name + item for name, item in items)
    raise TypeError(f"a key is made of plain values, got {type(value).__name__}")
