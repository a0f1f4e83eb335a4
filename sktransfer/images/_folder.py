"""A folder of images, one subfolder a class, as scikit-learn's (X, y)."""

import os
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import numpy as np

from ..exceptions import UnreadableImageWarning
from ._formats import ENDINGS
from ._listing import listed
from ._url import described, is_url

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "holdout"}
_NAMED = 5  # files, folders or classes in a message


@overload
def load_image_folder(
    path: str | os.PathLike[str], *, labelled: Literal[True] = True
) -> tuple[np.ndarray, np.ndarray]: ...


@overload
def load_image_folder(path: str | os.PathLike[str], *, labelled: Literal[False]) -> np.ndarray: ...


def load_image_folder(
    path: str | os.PathLike[str], *, labelled: bool = True
) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
    """List the images below a folder whose subfolders are the classes.

    Only names are read: no image is opened. Links to files and to class folders are
    followed, links to folders further down are not: they could lead in a circle.

    Parameters
    ----------
    path : str or path-like
        Folder whose direct subfolders are the classes, ``path/<class>/**/<image>``:
        of ``data/train/<class>``, it is ``data/train``. Hidden
        files and folders, whose names start with a dot, are left out. A URL such as
        ``s3://bucket/train``, or ``zip://train::archive.zip``, is listed the same way.
    labelled : bool, default=True
        False: the images have no labels, as those to predict. All that are in the folder
        and below it are listed, and only `paths` is returned.

    Returns
    -------
    paths : ndarray of shape (n_images,), dtype object
        Paths or URLs as str, sorted by class and then by name; without labels, by path.
    labels : ndarray of shape (n_images,), dtype str
        Name of each image's class folder. Only where `labelled` is true.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        When `path` is not a folder.
    OSError
        When a URL can't be listed; `PermissionError` where access is denied.
    ValueError
        When no subfolder holds an image; when the subfolders are splits, such as
        ``train`` and ``val``, that hold the same classes, or no folders.

    Warns
    -----
    UnreadableImageWarning
        Names the files whose ending is not that of a supported format, the images
        that are in no class folder, and the class folders without an image; they are left
        out.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from sktransfer import load_image_folder
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ["cat", "dog"]:
    ...     (root / name).mkdir()
    ...     Image.new("RGB", (8, 8)).save(root / name / "1.png")
    >>> paths, labels = load_image_folder(root)
    >>> labels.tolist()
    ['cat', 'dog']
    >>> len(load_image_folder(root, labelled=False))
    2
    """
    root = os.fspath(path)
    find = _by_url if is_url(root) else _in_folder
    found = find(root, labelled)
    shown = described(root) if is_url(root) else root
    if not found.paths:
        raise ValueError(_nothing_found(shown, found.left_out, labelled))
    if labelled:
        _check_is_no_level_above(shown, found)
    no_image = "no image by its ending" + (" or in no class folder" if labelled else "")
    for what, names, unit in (
        (no_image, found.left_out, "file(s)"),
        ("classes without an image", found.empty, "folder(s)"),
    ):
        if names:
            listed_names = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            warnings.warn(
                f"left out, {what}: {len(names)} {unit}, {listed_names}",
                UnreadableImageWarning,
                stacklevel=2,
            )
    paths = np.array(found.paths, dtype=object)
    return (paths, np.array(found.labels)) if labelled else paths


class _Found(NamedTuple):
    """What is below a folder: images, labels, and what is left out of them."""

    paths: list[str]
    labels: list[str]
    left_out: list[str]
    empty: list[str]  # classes without an image
    folders_in: Callable[[str], set[str]]  # those of a class


def _in_folder(root: str, labelled: bool) -> _Found:
    _check_is_folder(root)
    paths: list[str] = []
    labels: list[str] = []
    left_out: list[str] = []
    empty: list[str] = []
    if not labelled:
        for file in _files_below(root):
            (paths if _is_image(file) else left_out).append(file)
        return _Found(paths, labels, left_out, empty, lambda name: _folders_below(root, name))
    for name in sorted(os.listdir(root)):
        if name.startswith("."):
            continue
        folder = os.path.join(root, name)
        if not os.path.isdir(folder):
            left_out.append(folder)
            continue
        n_before = len(paths)
        for file in _files_below(folder):
            if _is_image(file):
                paths.append(file)
                labels.append(name)
            else:
                left_out.append(file)
        if len(paths) == n_before:
            empty.append(name)
    return _Found(paths, labels, left_out, empty, lambda name: _folders_below(root, name))


def _by_url(root: str, labelled: bool) -> _Found:
    """Return what is below a URL; a name that ends with a slash is a folder."""
    files = sorted(
        (name.split("/"), url)
        for name, url in listed(root)
        if not any(part.startswith(".") for part in name.split("/"))
    )
    paths: list[str] = []
    labels: list[str] = []
    left_out: list[str] = []
    folders: dict[str, set[str]] = {}
    classes = {parts[0] for parts, _ in files if len(parts) > 1}
    for parts, url in files:
        if not parts[-1]:
            continue
        if not _is_image(parts[-1]) or (labelled and len(parts) == 1):
            left_out.append(described(url))
            continue
        paths.append(url)
        labels.append(parts[0])
        folders.setdefault(parts[0], set()).update(parts[1:2] if len(parts) > 2 else ())
    if not labelled:
        return _Found(sorted(paths), [], left_out, [], folders.__getitem__)
    return _Found(paths, labels, left_out, sorted(classes - set(labels)), folders.__getitem__)


def _nothing_found(shown: str, left_out: list[str], labelled: bool) -> str:
    if not labelled:
        return f"no image in path={shown!r} or below it"
    n_images = sum(map(_is_image, left_out))
    hint = f". {n_images} image(s) are in no class folder: labelled=False lists them"
    return (
        f"no class folder with an image below path={shown!r}; expected "
        f"{os.path.join(shown, '<class>', '<image>')}{hint if n_images else ''}"
    )


def _is_image(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in ENDINGS


def _check_is_folder(root: str) -> None:
    if os.path.isdir(root):
        return
    if os.path.exists(root):
        raise NotADirectoryError(
            f"path={root!r} is a file; pass the folder whose subfolders are the classes"
        )
    there = os.path.abspath(root)
    while not os.path.isdir(there):
        above = os.path.dirname(there)
        if above == there:  # Windows: a drive that does not exist
            raise FileNotFoundError(f"path={root!r} does not exist, nor does {there!r}")
        there = above
    names = sorted(name for name in os.listdir(there) if not name.startswith("."))
    listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    raise FileNotFoundError(
        f"path={root!r} does not exist; the folder {there!r} does, and holds {listed or 'nothing'}"
    )


def _folders_below(root: str, name: str) -> set[str]:
    with os.scandir(os.path.join(root, name)) as entries:
        return {e.name for e in entries if e.is_dir() and not e.name.startswith(".")}


def _check_is_no_level_above(root: str, found: _Found) -> None:
    """Raise where the subfolders are splits, and those with folders hold the same ones.

    The images of a split to predict often lie in no folder.
    """
    classes = sorted(set(found.labels))
    if len(classes) < 2 or not {name.lower() for name in classes} <= _SPLITS:
        return
    below = [found.folders_in(name) for name in classes]
    divided = [name for name, folders in zip(classes, below, strict=True) if folders]
    shared = sorted(set.intersection(*filter(None, below))) if divided else []
    if shared:
        raise ValueError(
            f"path={root!r} holds the splits {', '.join(classes)}, and {', '.join(divided)} "
            f"hold(s) the classes: {', '.join(shared[:_NAMED])}"
            f"{', ...' if len(shared) > _NAMED else ''}. Load one "
            f"split at a time: load_image_folder({os.path.join(root, divided[0])!r})"
        )


def _files_below(folder: str) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(here, name) for name in files if not name.startswith(".")]
    return sorted(found)
