"""The user's own networks, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..._spec import InputSpec, WeightsOffer
from .._architecture import Architecture, NetworkStructure
from .._stages import CLASS_TOKEN, FEATURE_MAPS, outside


@dataclass(frozen=True)
class Registration:
    builder: Callable[..., nn.Module]
    stages: Mapping[str, Sequence[str]]
    input: InputSpec
    class_token: bool
    version: str | int | None = None


registered: dict[str, Registration] = {}


def names() -> tuple[str, ...]:
    return tuple(registered)


def architecture(name: str) -> Architecture | None:
    """Return the registered architecture of that name, None where there is none."""
    registration = registered.get(name)
    if registration is None:
        return None
    offer = WeightsOffer(
        name="default",
        location=f"the builder registered as {name!r}",
        input=registration.input,
        licence="",
        n_bytes=0,
    )
    return Architecture(
        name=name,
        source="registered",
        build=registration.builder,
        structure=partial(_structure, name, registration),
        input=lambda: registration.input,
        offers=lambda: {"default": offer},
        pretrained=_as_built,
        builds_empty=False,
    )


def _as_built(architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]) -> nn.Module:
    return architecture.random(params)


def _structure(name: str, registration: Registration, model: Any) -> NetworkStructure:
    if not isinstance(model, nn.Module):
        raise TypeError(f"the builder registered as {name!r} returned {model!r}, not an nn.Module")
    for stage, steps in registration.stages.items():
        for step in steps:
            try:
                model.get_submodule(step)
            except AttributeError:
                raise ValueError(
                    f"stage {stage!r} of the registered backbone {name!r} names the submodule "
                    f"{step!r}, which {type(model).__name__} does not have"
                ) from None
    return NetworkStructure(
        stages=registration.stages,
        head=outside(model, registration.stages),
        layout=CLASS_TOKEN if registration.class_token else FEATURE_MAPS,
    )
