"""Versions in a saved estimator, and a warning where another one loads it."""

import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

from .exceptions import InconsistentVersionWarning

_KEY = "_versions"
# What a fitted state is made of and read by. Of these only sktransfer's version decides
# how the state is laid out; the others are named in the warning where they differ too.
_PACKAGES = ("sktransfer", "scikit-learn", "skorch", "torch", "torchvision")


def with_versions(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of an estimator and the versions that it was saved with."""
    return {**state, _KEY: installed_versions()}


def without_versions(state: Mapping[str, Any], estimator: str) -> dict[str, Any]:
    """Return the state alone; warn where another version of sktransfer saved it."""
    state = dict(state)
    saved, installed = state.pop(_KEY, {}), installed_versions()
    if saved.get("sktransfer") != installed["sktransfer"]:
        warnings.warn(InconsistentVersionWarning(estimator, saved, installed), stacklevel=3)
    return state


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that a fitted state depends on."""
    return dict(_installed())


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    return tuple((package, version(package)) for package in _PACKAGES)
