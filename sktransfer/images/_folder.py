"""A folder of images, one subfolder a class, as scikit-learn's (X, y)."""

import os
import warnings

import numpy as np

from ..exceptions import UnreadableImageWarning
from ._formats import ENDINGS


def load_image_folder(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """List the images below a folder whose subfolders are the classes.

    Only names are read: no image is opened. Links to files and to class folders are
    followed, links to folders further down are not: they could lead in a circle.

    Parameters
    ----------
    path : str or path-like
        Folder whose direct subfolders are the classes, ``path/<class>/**/<image>``:
        of ``data/train/<class>``, it is ``data/train``. Hidden
        files and folders, whose names start with a dot, are left out.

    Returns
    -------
    paths : ndarray of shape (n_images,), dtype object
        Paths as str, sorted by class and then by name.
    labels : ndarray of shape (n_images,), dtype str
        Name of each image's class folder.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        When `path` is not a folder.
    ValueError
        When no subfolder holds an image.

    Warns
    -----
    UnreadableImageWarning
        Names the files whose ending is not that of a supported format, and the images
        that are in no class folder; they are left out.

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
    """
    root = os.fspath(path)
    paths, labels, left_out = [], [], []
    for name in sorted(os.listdir(root)):
        if name.startswith("."):
            continue
        folder = os.path.join(root, name)
        if not os.path.isdir(folder):
            left_out.append(folder)
            continue
        for file in _files_below(folder):
            if os.path.splitext(file)[1].lower() in ENDINGS:
                paths.append(file)
                labels.append(name)
            else:
                left_out.append(file)
    if not paths:
        raise ValueError(
            f"no image below {root!r}; expected {os.path.join(root, '<class>', '<image>')}"
        )
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        warnings.warn(
            f"left out, no image by its ending or in no class folder: {len(left_out)} "
            f"file(s), {shown}",
            UnreadableImageWarning,
            stacklevel=2,
        )
    return np.array(paths, dtype=object), np.array(labels)


def _files_below(folder: str) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [os.path.join(here, name) for name in files if not name.startswith(".")]
    return sorted(found)
