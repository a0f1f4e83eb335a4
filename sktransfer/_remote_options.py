"""What may be read by URL, and how: from the environment, so that workers have it as well.

No option is a secret. Credentials are those of each store's own variables.
"""

import math
import os
from dataclasses import dataclass

SCHEMES = ("https", "s3", "gs", "az", "memory", "zip", "tar")
_ALL_SCHEMES = (*SCHEMES, "http")
MOST_BYTES = 2**28  # of an image, which is read whole; also the limit of files
_PREFIX = "SKTRANSFER_REMOTE_"


@dataclass(frozen=True)
class RemoteOptions:
    """How images are read by URL.

    Attributes
    ----------
    schemes : frozenset of str
        Those that are read. "http", which anyone on the way can read and change, is not among
        them by default.
    connections : int
        Most requests at the same time.
    timeout : float
        Seconds that one request may take, from connecting to the last byte.
    retries : int
        How often a request that failed is repeated, after 0.1 s, 0.2 s, 0.4 s and so on.
    max_bytes : int
        Largest image; its bytes are not read where it has more.
    is_private_allowed : bool
        Whether https may lead to addresses of this machine and its network. Endpoints of
        stores, which the environment sets, may in any case.
    """

    schemes: frozenset[str] = frozenset(SCHEMES)
    connections: int = 32
    timeout: float = 30.0
    retries: int = 4
    max_bytes: int = MOST_BYTES
    is_private_allowed: bool = False


def remote_options() -> RemoteOptions:
    """Return the options of the environment; raise ValueError for one that can't be used."""
    return RemoteOptions(
        schemes=_schemes(),
        connections=int(_number("CONNECTIONS", 32, 1, whole=True)),
        timeout=_number("TIMEOUT", 30.0, 0.001),
        retries=int(_number("RETRIES", 4, 0, whole=True)),
        max_bytes=int(_number("MAX_BYTES", MOST_BYTES, 1, MOST_BYTES, whole=True)),
        is_private_allowed=bool(_number("PRIVATE", 0, 0, 1, whole=True)),
    )


def _schemes() -> frozenset[str]:
    value = os.environ.get(f"{_PREFIX}SCHEMES")
    if value is None:
        return frozenset(SCHEMES)
    names = {name.strip().lower() for name in value.split(",")} - {""}
    if unknown := sorted(names - set(_ALL_SCHEMES)):
        raise ValueError(
            f"the environment variable {_PREFIX}SCHEMES names {', '.join(unknown)}; allowed are "
            f"{', '.join(_ALL_SCHEMES)}, separated by commas"
        )
    return frozenset(names)


def _number(
    name: str, default: float, low: float, high: float = math.inf, *, whole: bool = False
) -> float:
    text = os.environ.get(_PREFIX + name)
    if text is None:
        return default
    try:
        value = float(int(text)) if whole else float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or math.isinf(value):
        kind = "a whole number" if whole else "a number"
        bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:.0f}"
        raise ValueError(
            f"the environment variable {_PREFIX}{name} must be {kind} {bounds}, got {text!r}"
        )
    return value
