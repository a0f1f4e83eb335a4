"""URLs of images: which there are, how they are named in errors, and what distinguishes them.

What is a secret in a URL (a user, a password, a signature) is in neither name.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote_plus, urlsplit

from .._object_store import OBJECT_SCHEMES, ObjectStoreError

ARCHIVES = ("zip", "tar")

# Two letters or more: "c:" is a drive of Windows.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# What stores add to sign a URL, by a name that no other URL has beside it: S3 and Google, their
# older way, CloudFront, and Azure.
_SIGNATURES = (
    ({"x-amz-signature"}, re.compile(r"x-amz-.*")),
    ({"x-goog-signature"}, re.compile(r"x-goog-.*")),
    ({"awsaccesskeyid", "signature"}, re.compile(r"awsaccesskeyid|signature|expires")),
    ({"googleaccessid", "signature"}, re.compile(r"googleaccessid|signature|expires")),
    ({"key-pair-id", "signature"}, re.compile(r"key-pair-id|signature|expires|policy")),
    (
        {"sig", "sv", "sp"},
        re.compile(r"sig|sv|ss|srt|sr|se|st|sp|sip|spr|si|sdd|sk(oid|tid|t|e|s|v)|s[au]oid|scid"),
    ),
    ({"sig", "sv", "si"}, re.compile(r"sig|sv|sr|si|se|st|spr|sip|sdd")),
)


class Member(NamedTuple):
    """One file in an archive, ``zip://member::archive``."""

    kind: str
    name: str
    archive: str  # a path or a URL


def is_url(text: str) -> bool:
    """Tell whether a cell is a URL, and no path."""
    return "://" in text and _URL.match(text) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in small letters."""
    return url.partition("://")[0].lower()


def split_member(url: str) -> Member:
    """Return the parts of the URL of a member of an archive."""
    kind, _, rest = url.partition("://")
    name, separator, archive = rest.rpartition("::")
    if not separator or not archive:
        raise ObjectStoreError(f"names no archive; expected {kind}://member::archive.{kind}")
    return Member(kind.lower(), name, archive)


def server_of(url: str) -> str:
    """Return what answers for a URL: a bucket, or a host; of a member, that of its archive."""
    if scheme_of(url) in ARCHIVES and "::" in url:
        return server_of(url.rpartition("::")[2])
    scheme, _, rest = url.partition("://")
    return f"{scheme.lower()}://{rest.partition('/')[0].rpartition('@')[2].lower()}"


def described(url: str) -> str:
    """Return the name of a URL in errors, without a user, a password or a query."""
    scheme = scheme_of(url)
    if scheme in ARCHIVES and "::" in url:
        inner, _, archive = url.rpartition("::")
        return f"{inner}::{described(archive) if is_url(archive) else archive}"
    start, _, rest = url.partition("://")
    name = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index]  # which matches anything
    place = rest[len(name) :]
    host = name.rpartition("@")[2]
    if ":" in re.sub(r":\d*$|\[.*\]", "", host) and "@" in place:
        # a password may hold a slash, as keys of S3 do, though it must not in a URL
        return f"{start}://..."
    if scheme in OBJECT_SCHEMES and not re.search(r"\?.*=", place):
        return f"{start}://{host}{place}"
    path, mark, _ = place.partition("#")[0].partition("?")
    return f"{start}://{host}{path}" + ("?..." if mark else "")


def https_identity(url: str) -> str:
    """Return what distinguishes a web address: all but user, password, signature and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    query = _without_signature(parts.query)
    return f"{parts.scheme.lower()}://{host}{parts.path}" + (f"?{query}" if query else "")


def _without_signature(query: str) -> str:
    pairs = [(unquote_plus(pair.partition("=")[0]).lower(), pair) for pair in query.split("&")]
    names = {name for name, _ in pairs}
    for needed, added in _SIGNATURES:
        if needed <= names:
            pairs = [(name, pair) for name, pair in pairs if not added.fullmatch(name)]
    return "&".join(pair for _, pair in pairs)
