"""`register_backbone`: what is checked before a network of the user's own gets a name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from .._spec import InputSpec
from .sources import _registered, find_architecture
from .sources._registered import Registration


def register_backbone(name, builder, stages, input, *, class_token=False):
    """Make a network of your own a backbone, under a name.

    Parameters
    ----------
    name : str
        What ``backbone=`` shall take. A name that is taken is refused, unless it is
        registered again as it is.
    builder : callable
        Returns the network, an ``nn.Module`` that takes normalised float images
        ``(n, 3, height, width)``. It is called with ``backbone_params``. Weights that
        it loads are the "default" weights; it may also leave them random, which is
        then the same draw every time.
    stages : dict of str to sequence of str
        Names of stages, from the image on, and for each the dotted names of the
        submodules that it calls one after the other. What is in no stage is the
        head, which is left out. Between stages there are feature maps
        ``(n, channels, height, width)`` or tokens ``(n, tokens, width)``.
    input : InputSpec or dict
        The preprocessing: ``size`` in pixels, ``mean`` and ``std`` per channel of
        values in [0, 1]; and ``resize`` (default: `size`) and ``interpolation``
        (default: "bilinear").
    class_token : bool, default=False
        Whether the first token is a class token.

    Notes
    -----
    The name is known in this process. A worker process of joblib, or a process that
    unpickles a fitted estimator, has to register it too: put the call into a module
    that both import, and the builder into a module as well, because a function of a
    notebook or a lambda can't be pickled.

    A module that code of your ``forward`` replaces, such as ``x + self.positions``,
    is best written as a submodule: a stage calls submodules, nothing else.

    Examples
    --------
    >>> from torch import nn
    >>> from sktransfer import backbone_info, register_backbone
    >>> def tiny(width=8):
    ...     return nn.Sequential(
    ...         nn.Conv2d(3, width, 3, stride=2), nn.ReLU(),
    ...         nn.Conv2d(width, 2 * width, 3, stride=2), nn.ReLU())
    >>> register_backbone(
    ...     "tiny", tiny, {"first": ("0", "1"), "second": ("2", "3")},
    ...     input={"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    >>> backbone_info("tiny").widths
    (3, 8, 16)
    """
    registration = Registration(
        _checked_builder(builder), _checked_stages(stages), _checked_input(input), bool(class_token)
    )
    _check_name(name)
    if name in _registered.registered:
        if _registered.registered[name] != registration:
            raise ValueError(
                f"name={name!r} is registered for another backbone; choose another name"
            )
        return
    if find_architecture(name) is not None:
        raise ValueError(f"name={name!r} is a backbone of sktransfer's own; choose another name")
    _registered.registered[name] = registration


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"name must be a str that is not empty, got {name!r}")
    if name.endswith((".safetensors", ".pth", ".pt", ".bin")) or ":" in name:
        raise ValueError(f"name={name!r} would be read as a file or a source; choose another name")


def _checked_builder(builder: Any) -> Callable[..., nn.Module]:
    if not callable(builder):
        raise TypeError(f"builder must be callable and return an nn.Module, got {builder!r}")
    return builder


def _checked_stages(stages: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(stages, Mapping) or not stages:
        raise TypeError(f"stages must be a dict of stage names to submodules, got {stages!r}")
    for stage, steps in stages.items():
        if isinstance(steps, str) or not isinstance(steps, Sequence) or not steps:
            raise TypeError(
                f"stages[{stage!r}] must be a sequence of submodules' names, got {steps!r}"
            )
    return {str(stage): tuple(steps) for stage, steps in stages.items()}


def _checked_input(values: Any) -> InputSpec:
    if isinstance(values, InputSpec):
        return values
    if not isinstance(values, Mapping):
        raise TypeError(f"input must be an InputSpec or a dict, got {values!r}")
    missing = [key for key in ("size", "mean", "std") if key not in values]
    if missing:
        raise ValueError(f"input lacks {', '.join(missing)}")
    return InputSpec.from_mapping({"resize": values["size"], "interpolation": "bilinear", **values})
