"""torchvision's classifiers: what they are built from, and the weights on offer."""

from __future__ import annotations

import math
import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from torch import nn

from ..._spec import InputSpec, WeightsOffer
from .._architecture import Architecture, NetworkStructure
from .._weights import download, downloaded_path, load_strictly, read_state_dict
from ._torchvision_families import Family, family_of

if TYPE_CHECKING:  # its import takes longer than all else: torchvision is imported where it is used
    from torchvision import models


@cache
def names() -> tuple[str, ...]:
    """Return the classifiers of the installed torchvision that a family covers."""
    from torchvision import models

    return tuple(name for name in models.list_models(module=models) if family_of(name))


def architecture(name: str) -> Architecture | None:
    """Return torchvision's architecture of that name, None where it has none."""
    family = family_of(name) if name in names() else None
    if family is None:
        return None
    from torchvision import models

    table = models.get_model_weights(name)
    return Architecture(
        name=name,
        source="torchvision",
        build=partial(models.get_model, name, weights=None),
        structure=partial(_structure, family),
        input=lambda: _input(table.DEFAULT),
        offers=lambda: _offers(family, table),
        pretrained=_pretrained,
        params=family.params,
        size_param=family.one_size.param if family.one_size else None,
        published_params=lambda: table.DEFAULT.meta["num_params"],
        is_downloaded=lambda offer: os.path.exists(downloaded_path(offer.location)),
    )


def _structure(family: Family, model: nn.Module) -> NetworkStructure:
    return NetworkStructure(
        stages=family.stages(model) if callable(family.stages) else family.stages,
        head=family.head,
        layout=family.layout,
        image_size=family.one_size.read(model) if family.one_size else None,
        pre_logits=family.pre_logits(model) if callable(family.pre_logits) else family.pre_logits,
    )


def _offers(family: Family, table: type[models.WeightsEnum]) -> dict[str, WeightsOffer]:
    default = table.DEFAULT
    entries = [default, *(entry for entry in table if entry is not default)]
    return {entry.name: _offer(family, entry) for entry in entries}


def _offer(family: Family, entry: models.WeightsEnum) -> WeightsOffer:
    input_spec, one_size = _input(entry), family.one_size
    top1 = entry.meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
    return WeightsOffer(
        name=entry.name,
        location=entry.url,
        input=input_spec,
        licence=_licence(entry),
        # VGG's feature extractor has no classifier, and "nan"
        top1=None if top1 is None or math.isnan(top1) else top1,
        # the table has megabytes of 2**20, to three decimals
        n_bytes=round(entry.meta["_file_size"] * 2**20),
        params=((one_size.param, one_size.value(input_spec.size)),) if one_size else (),
    )


def _input(entry: models.WeightsEnum) -> InputSpec:
    preset = entry.transforms()
    return InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
    )


def _licence(entry: models.WeightsEnum) -> str:
    """Return the licence as torchvision states it.

    Its README, "Pre-trained Model License": "may have their own licenses or terms and
    conditions derived from the dataset used for training", and "SWAG models are
    released under the CC-BY-NC 4.0 license".
    """
    stated = entry.meta.get("license")
    if stated is None:
        return "not stated (torchvision itself: BSD-3-Clause)"
    return "CC-BY-NC-4.0" if "SWAG" in stated else stated


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    title = f"backbone={architecture.name!r}, weights={offer.name!r}"
    state = read_state_dict(download(offer.location, title))
    model = architecture.empty(params)
    load_strictly(model, state, architecture.structure(model).head, title)
    return model
