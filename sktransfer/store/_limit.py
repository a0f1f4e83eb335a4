"""The limit on the size of a store, and the format of sizes."""

import os
import re

DEFAULT_LIMIT = 10 * 2**30  # bytes, or a tenth of the free disk if that is less
LIMIT_VARIABLE = "SKTRANSFER_CACHE_LIMIT"
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+\.?\d*|\.\d+)\s*([KMGT]?)(I?B)?", re.IGNORECASE)


def read_limit() -> int | None:
    """Return the number of bytes in SKTRANSFER_CACHE_LIMIT; None if it isn't set."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{LIMIT_VARIABLE} must be a number of bytes, or a number with K, M, G "
            f"or T such as 20G, 300MB or 1 GiB, got {text!r}"
        )
    number, unit, _ = match.groups()
    return int(float(number) * _UNITS.get(unit.upper(), 1))


def format_size(n_bytes: float) -> str:
    """Return a size as SKTRANSFER_CACHE_LIMIT takes it, rounded up to two digits."""
    for unit, size in reversed(_UNITS.items()):
        if n_bytes >= size:
            number = n_bytes / size
            step = 0.1 if number < 10 else 1 if number < 100 else 10
            rounded = -(-number // step) * step
            return f"{rounded:.1f}".removesuffix(".0") + unit
    return str(int(n_bytes))
