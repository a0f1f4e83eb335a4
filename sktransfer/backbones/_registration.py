"""`register_backbone`: check a network of the user's own and give it a name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from .._spec import InputSpec
from .sources import _registered, find_architecture
from .sources._registered import Registration


def register_backbone(
    name: str,
    builder: Callable[..., nn.Module],
    stages: Mapping[str, Sequence[str]],
    input: InputSpec | Mapping[str, Any],
    *,
    class_token: bool = False,
    version: str | int | None = None,
) -> None:
    """Register a network of your own as a backbone.

    Parameters
    ----------
    name : str
        The name for ``backbone=``. A name that is in use is an error, unless the same
        registration is repeated.
    builder : callable
        Returns the network, an ``nn.Module`` that takes normalised float images
        ``(n, 3, height, width)``. It is called with ``backbone_params``. Weights that
        it loads are the "default" weights. If it leaves them random, they are drawn
        with a fixed seed, so they are the same every time.
    stages : dict of str to sequence of str
        Names of stages, from the image on, and for each the dotted names of the
        submodules that it calls one after the other. Submodules in no stage are the
        head, which is left out. The activation after a stage is feature maps
        ``(n, channels, height, width)`` or tokens ``(n, tokens, width)``.
    input : InputSpec or dict
        The preprocessing: ``size`` in pixels, ``mean`` and ``std`` per channel of
        values in [0, 1]; and ``resize`` (default: `size`) and ``interpolation``
        (default: "bilinear").
    class_token : bool, default=False
        Whether the first token is a class token.
    version : str or int, optional
        A version of what the network's Python code does not show, such as a compiled
        extension, or a file that is read in its forward. Another version is another
        network: its rows are computed anew, and pickles of the former one are refused.

    Notes
    -----
    The network is loaded at its first use. Its stages are then compared with its own
    ``forward``, on drawn images: from the image to the last stage, ``forward`` must call
    the submodules of the stages, in their order, each with what the one before it
    returned. Anything between two of them, such as ``torch.relu``, is an error that
    names them. What follows the last stage is the head, and is not compared. A network
    without a ``forward`` of its own can't be compared.

    The key of a stored row names the weights and the code of the stages: the operations
    that a forward pass calls, with their constants. Where the operations can't be
    traced, because they depend on values, it is the compiled code of the network's
    classes and of the functions that they call. A changed activation function, constant
    or helper function makes another backbone; comments and names of files don't.

    The name is known in this process. A worker process of joblib, or a process that
    unpickles a fitted estimator, has to register it too: put the call into a module
    that both import, and the builder into a module as well, because a function of a
    notebook or a lambda can't be pickled.

    A stage calls submodules and nothing else. Write what your ``forward`` does in code
    of its own, such as ``x + self.positions``, as a submodule.

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
        _checked_builder(builder),
        _checked_stages(stages),
        _checked_input(input),
        bool(class_token),
        _checked_version(version),
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


def _checked_version(version: Any) -> str | int | None:
    if version is not None and (isinstance(version, bool) or not isinstance(version, (str, int))):
        raise TypeError(
            f"version must be a str, an int or None, got {version!r}; give another one whenever "
            "the network changes in a way that its Python code does not show"
        )
    return version
