"""A folder of images, one subfolder a class, as scikit-learn's (X, y)."""

import os
import warnings
from typing import Literal, overload

import numpy as np

from ..exceptions import UnreadableImageWarning
from ._formats import ENDINGS

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
        files and folders, whose names start with a dot, are left out.
    labelled : bool, default=True
        False: the images have no labels, as those to predict. All that are in the folder
        and below it are listed, and only `paths` is returned.

    Returns
    -------
    paths : ndarray of shape (n_images,), dtype object
        Paths as str, sorted by class and then by name; without labels, by path.
    labels : ndarray of shape (n_images,), dtype str
        Name of each image's class folder. Only where `labelled` is true.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        When `path` is not a folder.
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
    _check_is_folder(root)
    if not labelled:
        paths_below, others = _unlabelled(root)
        if others:
            _warn_of_left_out("no image by its ending", others, "file(s)")
        return paths_below
    paths: list[str] = []
    labels: list[str] = []
    left_out: list[str] = []
    empty: list[str] = []
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
    if not paths:
        n_images = sum(map(_is_image, left_out))
        hint = f". {n_images} image(s) are in no class folder: labelled=False lists them"
        raise ValueError(
            f"no class folder with an image below path={root!r}; expected "
            f"{os.path.join(root, '<class>', '<image>')}{hint if n_images else ''}"
        )
    _check_is_no_level_above(root, sorted(set(labels)))
    if left_out:
        _warn_of_left_out("no image by its ending or in no class folder", left_out, "file(s)")
    if empty:
        _warn_of_left_out("classes without an image", empty, "folder(s)")
    return np.array(paths, dtype=object), np.array(labels)


def _unlabelled(root: str) -> tuple[np.ndarray, list[str]]:
    """Return the images, and the files that are none."""
    files = _files_below(root)
    paths = [file for file in files if _is_image(file)]
    if not paths:
        raise ValueError(f"no image in path={root!r} or below it")
    return np.array(paths, dtype=object), [file for file in files if not _is_image(file)]


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


def _check_is_no_level_above(root: str, classes: list[str]) -> None:
    """Raise where the subfolders are splits, and those with folders hold the same ones.

    The images of a split to predict often lie in no folder.
    """
    if len(classes) < 2 or not {name.lower() for name in classes} <= _SPLITS:
        return
    below = []
    for name in classes:
        with os.scandir(os.path.join(root, name)) as entries:
            below.append({e.name for e in entries if e.is_dir() and not e.name.startswith(".")})
    divided = [name for name, folders in zip(classes, below, strict=True) if folders]
    shared = sorted(set.intersection(*filter(None, below))) if divided else []
    if shared:
        raise ValueError(
            f"path={root!r} holds the splits {', '.join(classes)}, and {', '.join(divided)} "
            f"hold(s) the classes: {', '.join(shared[:_NAMED])}"
            f"{', ...' if len(shared) > _NAMED else ''}. Load one "
            f"split at a time: load_image_folder({os.path.join(root, divided[0])!r})"
        )


def _warn_of_left_out(what: str, names: list[str], unit: str) -> None:
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    warnings.warn(
        f"left out, {what}: {len(names)} {unit}, {shown}", UnreadableImageWarning, stacklevel=3
    )


def _files_below(folder: str) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(here, name) for name in files if not name.startswith(".")]
    return sorted(found)
