"""Objects in S3, Google Cloud Storage and Azure by URL, with the credentials of the environment.

Nothing here is given a secret, and no error has one: the library reads credentials from the
environment, as each store's own tools do, and its messages are shortened to their cause.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from ._remote_options import RemoteOptions, remote_options

OBJECT_SCHEMES = ("s3", "gs", "az")

# Names of buckets and containers: nothing that a host name or a path would read otherwise.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_MOST_BUCKETS = 64  # that are kept: each has connections and certificates of its own
# what S3 answers with status 400 and not 403
_CREDENTIALS_ENDED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_LISTED_AT_ONCE = 1000  # what the stores return in one answer


class ObjectStoreError(Exception):
    """A request to a store failed; the message is the cause, without any credential.

    Parameters
    ----------
    cause : str
    is_refused : bool, default=False
        Whether the store answered that this may not be done, or that it does not know who asks.
    is_unreachable : bool, default=False
        Whether no answer came, after all retries: other requests will most likely fail as well.
    """

    def __init__(self, cause: str, *, is_refused: bool = False, is_unreachable: bool = False):
        self.is_refused = is_refused
        self.is_unreachable = is_unreachable
        super().__init__(cause)


class NoSuchObjectError(ObjectStoreError):
    """The store has no object of this name."""


class ObjectStatus(NamedTuple):
    """What a store tells of an object without sending it."""

    key: str
    size: int
    e_tag: str | None
    time: float = 0.0  # when it was written, in seconds since 1970


class ObjectContent(NamedTuple):
    """The bytes of an object, and its status when they were sent."""

    data: bytes
    status: ObjectStatus


def split_object_url(url: str) -> tuple[str, str, str]:
    """Return scheme, bucket and key of a URL; the key is taken as it is, without decoding."""
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    bucket, _, key = rest.partition("/")
    if scheme not in OBJECT_SCHEMES:
        raise ObjectStoreError(f"{scheme}:// is no object store: {', '.join(OBJECT_SCHEMES)}")
    if not _BUCKET.fullmatch(bucket):
        raise ObjectStoreError(
            f"no name of a bucket between {scheme}:// and the next slash; credentials are taken "
            "from the environment, never from a URL"
            if "@" in rest or ":" in bucket
            else f"no name of a bucket between {scheme}:// and the next slash"
        )
    return scheme, bucket, key


def open_bucket(url: str) -> "Bucket":
    """Return the bucket or container of a URL; its key is left to the caller.

    The store is asked nothing yet. The last buckets are kept, with their connections.

    Raises
    ------
    ImportError
        When the library is not installed.
    ObjectStoreError
        When the URL names no bucket, or the environment can't be used.
    """
    scheme, name, _ = split_object_url(url)
    options = remote_options()
    check_scheme(scheme, options)
    _check_not_forked()
    prefix = _PREFIXES[scheme]
    # names first: this is done for each image, and each value that is read costs
    names = sorted(name for name in os.environ if name.startswith(prefix))
    variables = tuple((name, os.environ[name]) for name in names)
    key = (scheme, name, variables, options)
    with _lock:
        bucket = _buckets.pop(key, None) or Bucket(scheme, name, options)
        _buckets[key] = bucket  # the last one
        while len(_buckets) > _MOST_BUCKETS:
            _buckets.pop(next(iter(_buckets)))
        return bucket


def check_scheme(scheme: str, options: RemoteOptions) -> None:
    """Raise ObjectStoreError for a scheme that the user has not allowed."""
    if scheme not in options.schemes:
        raise ObjectStoreError(
            f"{scheme}:// is not allowed; allowed: {', '.join(sorted(options.schemes)) or 'none'} "
            "(the environment variable SKTRANSFER_REMOTE_SCHEMES)",
            is_refused=True,
        )


class Bucket:
    """The objects of one bucket or container.

    Parameters
    ----------
    scheme : {"s3", "gs", "az"}
    name : str
    options : RemoteOptions

    Attributes
    ----------
    identity : str
        Where it is, without credentials: scheme, endpoint where it is not the default, name.
    """

    def __init__(self, scheme: str, name: str, options: RemoteOptions):
        self._obstore = _imported(scheme)
        endpoint = _endpoint(scheme)
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "") if scheme == "az" else ""
        emulator = "emulator" if scheme == "az" and _uses_emulator() else ""
        at = " ".join(filter(None, (account, redacted_text(endpoint), emulator)))
        self.identity = f"{scheme}://{name}" + (f" at {at}" if at else "")
        arguments: dict[str, Any] = {
            "client_options": {
                "timeout": timedelta(seconds=options.timeout),
                "connect_timeout": timedelta(seconds=min(10.0, options.timeout)),
                # an endpoint without TLS is the choice of whoever set the variable
                "allow_http": endpoint.startswith("http://"),
            },
            "retry_config": {
                "max_retries": options.retries,
                "backoff": {"init_backoff": timedelta(seconds=0.1)},
            },
        }
        if scheme == "s3" and (provider := _aws_profile()) is not None:
            arguments["credential_provider"] = provider
        stores = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
        with _translated():
            self._store = getattr(self._obstore.store, stores[scheme])(name, **arguments)

    def get(
        self,
        key: str,
        max_bytes: int | None = None,
        admit: Callable[[int], None] | None = None,
    ) -> ObjectContent:
        """Return an object; one that has more than `max_bytes` is an error, and is not read.

        `admit` is called with its size before it is read; what it raises ends the request.
        """
        with _translated():
            result = self._obstore.get(self._store, _checked(key))
            status = _status(result.meta, key)
        if max_bytes is not None and status.size > max_bytes:
            raise TooLargeError(status.size)
        if admit is not None:
            admit(status.size)
        with _translated():
            try:
                data = bytes(result.bytes())
            except self._obstore.exceptions.GenericError as error:
                if _is_timeout(error):
                    raise
                raise ObjectStoreError(
                    f"the download broke off before its {status.size:,} bytes had come, "
                    "each time it was tried"
                ) from None
        return ObjectContent(data, status)

    def get_range(self, key: str, start: int, length: int) -> ObjectContent:
        """Return some bytes of an object, fewer where it ends before, and its status."""
        with _translated():
            options = {"range": (start, start + length)}
            result = self._obstore.get(self._store, _checked(key), options=options)
            return ObjectContent(bytes(result.bytes()), _status(result.meta, key))

    def head(self, key: str) -> ObjectStatus:
        """Return the status of an object."""
        with _translated():
            return _status(self._obstore.head(self._store, _checked(key)), key)

    def list(self, folder: str = "", after: str | None = None) -> Iterator[list[ObjectStatus]]:
        """Yield the objects below a folder, a thousand at a time, in the order of the store.

        Parameters
        ----------
        folder : str, default=""
            The part of the keys before a slash; "" is all objects of the bucket.
        after : str, default=None
            A key: only later ones are listed.
        """
        with _translated():
            pages = self._obstore.list(
                self._store, folder or None, offset=after, chunk_size=_LISTED_AT_ONCE
            )
            for page in pages:
                yield [_status(meta, meta["path"]) for meta in page]

    def put(self, key: str, data: bytes) -> None:
        """Write an object in one step; readers see the old one or this one."""
        with _translated():
            self._obstore.put(self._store, _checked(key), data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object in one step, only where there is none; return whether it was written.

        Of several writers at the same time, one writes. After a lost answer this may return
        False for an object that this very call has written: compare contents where that matters.
        """
        with _translated():
            try:
                self._obstore.put(self._store, _checked(key), data, mode="create")
            except self._obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is none to delete."""
        with _translated():
            try:
                self._obstore.delete(self._store, _checked(key))
            except FileNotFoundError:
                return


class TooLargeError(ObjectStoreError):
    """An object is larger than was allowed; it was not read."""

    def __init__(self, n_bytes: int):
        self.n_bytes = n_bytes
        super().__init__(f"{n_bytes:,} bytes, more than allowed")


def _status(meta: Any, key: str) -> ObjectStatus:
    return ObjectStatus(key, meta["size"], meta["e_tag"], meta["last_modified"].timestamp())


def _checked(key: str) -> str:
    if not key or key.startswith("/"):  # the library would ask for another object
        raise ObjectStoreError("no key behind the bucket" if not key else "a key starts with '/'")
    return key


def _imported(scheme: str) -> Any:
    try:
        import obstore
        import obstore.store
    except ImportError:
        raise ImportError(
            f"images at {scheme}:// need obstore: pip install 'sktransfer[remote]'"
        ) from None
    return obstore


def _endpoint(scheme: str) -> str:
    """Return the endpoint that the environment names, as the library reads it; "" for none."""
    names = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }[scheme]
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _uses_emulator() -> bool:
    value = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "")
    return value.lower() in ("1", "true", "on", "yes", "y")


def _aws_profile() -> Any:
    """Return a provider of the credentials in ``~/.aws``, where the environment has none.

    The library itself reads variables and the roles of machines, but no files of profiles.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return None
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    if not any(os.path.exists(os.path.expanduser(file)) for file in files):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    session = boto3.Session()
    return Boto3CredentialProvider(session) if session.get_credentials() else None


class _translated:
    """Turns errors of the library into ours; its own hold URLs and several lines."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, ObjectStoreError | GeneratorExit):
            return
        if isinstance(error, Exception):
            raise _as_ours(error) from None


def _as_ours(error: Exception) -> ObjectStoreError:
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d{3})", text)
    said = ", ".join(found[1] for found in (status, code) if found)
    said = f" ({said})" if said else ""
    name = type(error).__name__
    if isinstance(error, FileNotFoundError):
        return NoSuchObjectError(
            "no such bucket" if "NoSuchBucket" in said else "no such object, or no such bucket"
        )
    if name in ("PermissionDeniedError", "UnauthenticatedError"):
        return ObjectStoreError(f"access denied{said}", is_refused=True)
    if isinstance(error, ValueError):
        return ObjectStoreError(f"no valid key ({redacted_text(text.splitlines()[0])})")
    if _is_timeout(error):
        return ObjectStoreError("the store did not answer in time", is_unreachable=True)
    # the second: a connection that was kept has ended meanwhile, or ends each time
    if "Connect" in text or "error sending request" in text:
        return ObjectStoreError("the store can't be reached", is_unreachable=True)
    if "BadScheme" in text:
        return ObjectStoreError("the store is not at https", is_refused=True)
    if "NoSuchBucket" in said:
        return NoSuchObjectError("no such bucket")
    if said:
        return ObjectStoreError(
            f"the store failed{said}",
            is_refused=any(code in said for code in _CREDENTIALS_ENDED),
            is_unreachable=said.startswith((" (5", " (429")),
        )
    first = text.splitlines()[0] if text else name
    return ObjectStoreError(redacted_text(first)[:200])


def _is_timeout(error: Exception) -> bool:
    return "timed out" in str(error) or "TimedOut" in str(error)


def redacted_text(text: str) -> str:
    """Return a text whose URLs have no user, no password and no query."""
    text = re.sub(r"(\w://)[^/\s]*@", r"\1", text)
    return re.sub(r"(\w://[^\s?]*)\?\S*", r"\1", text)


_lock = threading.Lock()
_buckets: dict[tuple, Bucket] = {}
_is_forked = False


def _after_fork() -> None:
    global _lock, _is_forked
    _lock = threading.Lock()
    _is_forked = _is_forked or bool(_buckets)  # a fork of a fork is none the better
    _buckets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _check_not_forked() -> None:
    if _is_forked:  # the threads that send the library's requests are not in the child
        raise ObjectStoreError(
            "this process is a fork of one that had read from object stores, where a read would "
            "never end; start workers with loky (joblib's default) or the method 'spawn'"
        )
