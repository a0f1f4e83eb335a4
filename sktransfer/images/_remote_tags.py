"""What the stores say of many images by URL without sending them: by listing, or one by one."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from .._object_store import OBJECT_SCHEMES, ObjectStoreError, open_bucket, split_object_url
from .._remote_options import remote_options
from ..exceptions import DecodeError
from ._blob import strong_tag
from ._remote import Unanswered, current_tag
from ._url import ARCHIVES, scheme_of

# A listing answers for up to 1,000 objects at once. It costs 12 times as much as one request for
# an object (S3's prices), and many of those run at the same time.
_WORTH_A_LISTING = 16  # objects in one answer

Tag = str | None | DecodeError


def remote_tags(urls: Collection[str]) -> Mapping[str, Tag]:
    """Return for each URL what changes with its content, None, or why that can't be told.

    Objects of a folder that many are wanted of are listed; of an archive, the archive is asked
    for once. The requests run at the same time.
    """
    sources = {url: _source(url) for url in urls}
    folders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source in set(sources.values()):
        if scheme_of(source) in OBJECT_SCHEMES:
            folder, slash, name = source.rpartition("/")
            folders[folder, slash].append(name)
    tags: dict[str, Tag] = {}
    pool = ThreadPoolExecutor(remote_options().connections, "sktransfer-remote")
    try:
        many = [
            (f"{folder}{slash}", names)
            for (folder, slash), names in folders.items()
            if len(names) >= _WORTH_A_LISTING
        ]
        for found in pool.map(_listed, many):
            tags.update(found)
        left = [source for source in set(sources.values()) if source not in tags]
        tags.update(zip(left, pool.map(_OneByOne(), left), strict=True))
    finally:
        # without waiting: after Ctrl-C, for a server that does not answer
        pool.shutdown(wait=False, cancel_futures=True)
    return {url: tags[source] for url, source in sources.items()}


def _source(url: str) -> str:
    """Return the URL whose tag is asked for: of all members of an archive the same."""
    if scheme_of(url) in ARCHIVES and "::" in url:
        return f"{scheme_of(url)}://::{url.rpartition('::')[2]}"
    return url


def _listed(folder_and_names: tuple[str, list[str]]) -> dict[str, Tag]:
    """Return the tags of those objects of a folder that its listing shows in few requests."""
    folder, names = folder_and_names
    try:
        bucket = open_bucket(folder)
        start = split_object_url(folder)[2]
        wanted = {f"{start}{name}" for name in names}
        found: dict[str, Tag] = {}
        # what begins a name comes before it, and so before no later one that is wanted
        after = min(wanted)[:-1]
        for page in bucket.list(start.rstrip("/"), after if after > start else None):
            here = {
                f"{folder}{status.key[len(start) :]}": strong_tag(status.e_tag, status.size)
                for status in page
                if status.key in wanted
            }
            found |= here
            if len(found) == len(wanted) or len(here) < _WORTH_A_LISTING:
                break
        return found
    except ObjectStoreError:
        return {}  # some may read and not list; what is wrong is told of each object


class _OneByOne:
    """Asks for one object."""

    def __init__(self) -> None:
        self._unanswered = Unanswered(max(remote_options().connections, 8))

    def __call__(self, url: str) -> Tag:
        try:
            self._unanswered.check(url)
        except DecodeError as error:
            return error
        try:
            tag = current_tag(url)
        except DecodeError as error:
            self._unanswered.note(url, error)
            return error
        self._unanswered.note(url, None)
        return tag
