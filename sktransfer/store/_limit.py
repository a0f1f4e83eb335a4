"""The limit on the size of a store, and the format of sizes."""

import os

DEFAULT_LIMIT = 10 * 2**30  # bytes, or a tenth of the free disk if that is less
LIMIT_VARIABLE = "SKTRANSFER_CACHE_LIMIT"
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_limit() -> int | None:
    """Return the number of bytes in SKTRANSFER_CACHE_LIMIT; None if it isn't set."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return None
    unit = _UNITS.get(text[-1].upper(), 1)
    number = text if unit == 1 else text[:-1]
    try:
        limit = int(float(number) * unit)
    except (ValueError, OverflowError):  # no number; infinity
        limit = -1
    if limit < 0:
        raise ValueError(
            f"{LIMIT_VARIABLE} must be a number of bytes, or a number with K, M, G "
            f"or T such as 20G, got {text!r}"
        )
    return limit


def format_size(n_bytes: float) -> str:
    """Return a size as SKTRANSFER_CACHE_LIMIT takes it, rounded up to two digits."""
    for unit, size in reversed(_UNITS.items()):
        if n_bytes >= size:
            number = n_bytes / size
            step = 0.1 if number < 10 else 1 if number < 100 else 10
            rounded = -(-number // step) * step
            return f"{rounded:.1f}".removesuffix(".0") + unit
    return str(int(n_bytes))
