"""URLs of images: which there are, how they are named in errors, and what distinguishes them.

What is a secret in a URL (a user, a password, a signature) is in neither name.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from .._object_store import OBJECT_SCHEMES, ObjectStoreError, redacted_text

ARCHIVES = ("zip", "tar")

# Two letters or more: "c:" is a drive of Windows.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# What S3, Google Cloud Storage and CloudFront add to sign a URL; and Azure, beside its "sig".
_SIGNED = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id", re.I
)
_SIGNED_BY_AZURE = re.compile(r"s[a-z]{1,4}|sig", re.I)


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
    if scheme in OBJECT_SCHEMES and not re.search(r"\?.*=", url):
        return redacted_text(url) if "@" in url.split("/")[2] else url
    shown = redacted_text(url.partition("#")[0])
    return f"{shown}?..." if "?" in url else shown


def https_identity(url: str) -> str:
    """Return what distinguishes a web address: all but user, password, signature and fragment."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    query = urlencode(
        [
            (name, value)
            for name, value in pairs
            if not _SIGNED.fullmatch(name)
            and not ("sig" in names and _SIGNED_BY_AZURE.fullmatch(name))
        ]
    )
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme.lower()}://{host}{parts.path}" + (f"?{query}" if query else "")
