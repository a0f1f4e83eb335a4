"""The data sets of the benchmarks that train: images to fit and to test, and how to read them."""

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from sktransfer import load_image_folder


@dataclass(frozen=True)
class DataSet:
    """Images and labels to fit and to test; `reading` are parameters of the estimators."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    reading: dict[str, Any] = field(default_factory=dict)


def hymenoptera(folder, image_size):
    """Return the 245 photographs of ``train`` and the 153 of ``val``, ants and bees, as paths."""
    return DataSet(
        *load_image_folder(Path(folder) / "train"),
        *load_image_folder(Path(folder) / "val"),
        {"image_size": image_size},
    )


def cifar10(archive, image_size, seed, n_train, n_test, fit_on="train"):
    """Return as many images of each class as JPEG bytes, drawn from the zip.

    Those to test on are from ``test/``. So are those to fit with ``fit_on="test"``, for
    networks that were trained on ``train/``; no image is in both.
    """
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(archive) as members:
        names = np.array(sorted(n for n in members.namelist() if n.endswith(".jpg")))
        splits, labels, _ = np.array([name.split("/") for name in names]).T
        in_test = np.flatnonzero(splits == "test")
        if fit_on == "test":
            chosen = in_test[_draw(labels[in_test], n_train + n_test, rng)]
            parts = chosen[:, :n_train].ravel(), chosen[:, n_train:].ravel()
        else:
            in_train = np.flatnonzero(splits == "train")
            train = in_train[_draw(labels[in_train], n_train, rng).ravel()]
            parts = train, in_test[_draw(labels[in_test], n_test, rng).ravel()]
        X, X_test = (
            np.array([members.read(name) for name in names[part]], dtype=object) for part in parts
        )
    return DataSet(X, labels[parts[0]], X_test, labels[parts[1]], {"image_size": image_size})


def digits(image_size, seed, n_train, n_test):
    """Return as many of scikit-learn's digits of each class, as rows of 64 numbers."""
    X, y = load_digits(return_X_y=True)
    chosen = _draw(y, n_train + n_test, np.random.default_rng(seed))
    train, test = chosen[:, :n_train].ravel(), chosen[:, n_train:].ravel()
    reading = {"image_size": image_size, "image_shape": (8, 8), "pixel_range": (0, 16)}
    return DataSet(X[train], y[train], X[test], y[test], reading)


def digits_shift(file, domain, image_size, seed, n_train, n_test):
    """Return as many handwritten digits of each class of "mnist" or "usps", as arrays."""
    arrays = np.load(file)
    X, y = arrays[domain], arrays[f"{domain}_labels"]
    chosen = _draw(y, n_train + n_test, np.random.default_rng(seed))
    train, test = chosen[:, :n_train].ravel(), chosen[:, n_train:].ravel()
    return DataSet(X[train], y[train], X[test], y[test], {"image_size": image_size})


def rubbish(folder, image_size, seed, n_train):
    """Return as many photographs of each class of ``train``, drawn, and all of ``val``."""
    X, y = load_image_folder(Path(folder) / "train")
    chosen = _draw(y, n_train, np.random.default_rng(seed)).ravel()
    test = load_image_folder(Path(folder) / "val")
    return DataSet(X[chosen], y[chosen], *test, {"image_size": image_size})


def corrupted(X, kind, seed=0):
    """Return images, given as bytes of files, with "noise", "blur" or less "contrast"."""
    rng = np.random.default_rng(seed)
    changed = np.empty(len(X), dtype=object)
    for i, data in enumerate(X):
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        if kind == "blur":
            image = image.filter(ImageFilter.GaussianBlur(image.width / 32))
        pixels = np.asarray(image, dtype=float)
        if kind == "noise":
            pixels = pixels + rng.normal(0, 20, pixels.shape)
        elif kind == "contrast":
            pixels = 0.4 * pixels + 0.6 * pixels.mean()
        changed[i] = np.clip(pixels.round(), 0, 255).astype(np.uint8)
    return changed


def _draw(labels, n_per_class, rng):
    """Return positions (n_classes, n_per_class), each class's drawn without repetition."""
    return np.stack(
        [
            rng.choice(np.flatnonzero(labels == label), n_per_class, replace=False)
            for label in np.unique(labels)
        ]
    )
