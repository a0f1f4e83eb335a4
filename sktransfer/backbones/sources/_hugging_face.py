"""Files of weights on Hugging Face: what its cache holds, and whether there is a way to it."""

from collections.abc import Iterable

_CONNECTION = 10.0  # s, to wait for the first answer
_NO_CONNECTION = {"ConnectError", "ConnectTimeout", "ConnectionError"}


def cached_file(repository: str, files: Iterable[str]) -> str | None:
    """Return the path of the first of these files that the cache holds, None where it has none."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repository, file) for file in files)
    return next((path for path in found if isinstance(path, str)), None)


def connection_error(repository: str, file: str) -> Exception | None:
    """Return the error where there is no way to Hugging Face: loaders would try for a minute.

    Any other answer, such as that there is no such file, is left to the loader.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=_CONNECTION)
    except Exception as error:
        # of the library of requests that huggingface_hub uses, which has changed twice
        if _NO_CONNECTION & {cls.__name__ for cls in type(error).__mro__}:
            return error
    return None
