"""The lists of backbones and the descriptions of each: records that print as tables."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._spec import InputSpec, WeightsOffer
from .._text_table import count, html_table, table
from ._architecture import Architecture
from ._stages import PRE_LOGITS, PreLogits, count_macs, cut_into_stages, modules_of
from ._weights import read_metadata
from .sources import SOURCES, named_architecture, names, names_on_disk

_Table = tuple[tuple[str, ...], list[tuple]]  # header, rows


@dataclass(frozen=True)
class StageInfo:
    """One stage of a backbone.

    Attributes
    ----------
    name : str
    width : int
        Values in a row that is averaged after this stage; with ``pooling="flatten"``
        it is the product of `activation`.
    activation : tuple of int
        Shape of one image's activation: channels, height, width; or tokens, width.
    n_params : int
        Parameters of this stage alone.
    n_macs : int
        Multiply-accumulates of this stage alone, for one image of the weights' own size.
    """

    name: str
    width: int
    activation: tuple[int, ...]
    n_params: int
    n_macs: int


@dataclass(frozen=True, repr=False)
class BackboneInfo:
    """The description of a backbone; it prints as a table.

    Attributes
    ----------
    name : str
        What ``backbone=`` takes.
    architecture : str
    source : str
        "embedded", "keras", "openclip", "registered", "timm", "torchvision", or "file".
    n_params : int
        Parameters of the whole network with its head, as its source publishes it.
    n_macs : int
        Multiply-accumulates of all stages and `pre_logits`, for one image of the
        weights' own size.
    input : InputSpec
        The preprocessing of the default weights.
    image_size : int or None
        The only image size that the network takes; None where it takes many.
    stages : tuple of StageInfo
    pre_logits : StageInfo or None
        The layers between the last activation and the last linear layer, which
        ``pooling="auto"`` applies at full depth; None where there is a pooling alone.
    weights : tuple of WeightsOffer
        The default first.
    """

    name: str
    architecture: str
    source: str
    n_params: int
    n_macs: int
    input: InputSpec
    image_size: int | None
    stages: tuple[StageInfo, ...]
    pre_logits: StageInfo | None
    weights: tuple[WeightsOffer, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the row of ``pooling="auto"`` at every depth: of the image, then of stages."""
        *before, last = self.stages
        return (3, *(stage.width for stage in before), (self.pre_logits or last).width)

    def __repr__(self) -> str:
        only = " and no other" if self.image_size else ""
        lines = [
            f"{self.name} ({self.source}): {count(self.n_params)} parameters with head, "
            f"{count(self.n_macs)} multiply-accumulates without",
            f"input: {self.input.size} pixels{only}, resized to {self.input.resize}, "
            f"{self.input.interpolation}",
            "",
            table(*self._stages_table()),
        ]
        if self.weights:
            lines += ["", table(*_offers_table(self.weights))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, second = repr(self).splitlines()[:2]
        stages = html_table(*self._stages_table(), caption=f"{first}; {second}")
        return stages + (html_table(*_offers_table(self.weights)) if self.weights else "")

    def _stages_table(self) -> _Table:
        size = self.input.size
        rows: list[tuple] = [(0, "(image)", 3, _shape((3, size, size)), None, None)]
        rows += [(depth, *_cells(stage)) for depth, stage in enumerate(self.stages, start=1)]
        if self.pre_logits is not None:
            rows.append((None, *_cells(self.pre_logits)))
        return ("depth", "stage", "width", "activation", "parameters", "MACs"), rows


class BackboneList(list[str]):
    """A list of names that prints as a table."""

    def __repr__(self) -> str:
        return table(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table())

    def _table(self) -> _Table:
        rows: list[tuple] = []
        for name in self:
            architecture = named_architecture(name, None)
            offer = next(iter(architecture.offers().values()), None)
            size = (offer.input if offer else architecture.input()).size
            rows.append(
                (
                    name,
                    architecture.source,
                    count(_known_params(architecture)),
                    size,
                    _top1(offer.top1) if offer else None,
                    count(offer.n_bytes, "B") if offer else None,
                    offer.licence if offer else None,
                )
            )
        header = ("name", "source", "parameters", "pixels", "top-1", "download", "licence")
        return header, rows

    __str__ = __repr__


def list_backbones(
    source: str | None = None, max_params: int | None = None, offline: bool | None = None
) -> BackboneList:
    """List the names that ``backbone=`` takes; it also takes paths of backbone files.

    Parameters
    ----------
    source : {"embedded", "keras", "openclip", "registered", "timm", "torchvision"}, default=None
        Where they come from. None is all sources that need no extra; more than a thousand
        names of timm's, more than a hundred of open_clip's and those of keras.applications are
        listed with ``source="timm"``, ``source="openclip"`` and ``source="keras"``, where these
        are installed. With
        ``offline=True`` it is theirs too, of the weights in the Hugging Face cache.
    max_params : int, default=None
        Only networks of at most that many parameters, the head included. timm and
        open_clip publish no numbers, so each of their networks is built, without memory
        for its parameters; that takes minutes.
    offline : bool, default=None
        True: only what can be used without network now, because it ships with the
        package, was registered, or its default weights were downloaded before.
        False: only what has to be downloaded first.

    Returns
    -------
    names : list of str
        In alphabetical order. It prints as a table.

    See Also
    --------
    backbone_info : The description of one of them.

    Examples
    --------
    >>> from sktransfer import list_backbones
    >>> "resnet18" in list_backbones()
    True
    >>> small = list_backbones(source="torchvision", max_params=2_000_000)
    >>> list(small)
    ['shufflenet_v2_x0_5', 'squeezenet1_0', 'squeezenet1_1']
    >>> "mini" in list_backbones(offline=True)
    True
    """
    if source is not None and source not in SOURCES:
        allowed = ", ".join(repr(name) for name in sorted(SOURCES))
        raise ValueError(f"source must be one of {allowed} or None, got {source!r}")
    found = names_on_disk() if offline and source is None else names(source)
    if offline is not None:
        found = [
            name for name in found if _works_offline(named_architecture(name, None)) == offline
        ]
    if max_params is not None:
        found = [name for name in found if n_params(named_architecture(name, None)) <= max_params]
    return BackboneList(found)


def backbone_info(
    backbone: str | os.PathLike[str], backbone_params: Mapping[str, Any] | None = None
) -> BackboneInfo:
    """Return the description of a backbone. Nothing is downloaded.

    Parameters
    ----------
    backbone : str or path-like
        A name from :func:`list_backbones`, or the path of a self-describing
        ``.safetensors`` file.
    backbone_params : dict, default=None
        As in the estimators, for a network of other widths or image size.

    Returns
    -------
    info : BackboneInfo
        Architecture, stages with widths, parameters and multiply-accumulates,
        preprocessing, and the weights on offer with licence, top-1 and size of the
        download, as far as their source states them. It prints as a table.

    See Also
    --------
    list_backbones : The names.

    Notes
    -----
    The network is built without memory for its parameters, and shapes and
    operations are counted without computing: less than a second for most.

    Examples
    --------
    >>> from sktransfer import backbone_info
    >>> info = backbone_info("resnet18")
    >>> [stage.name for stage in info.stages]
    ['stem', 'layer1', 'layer2', 'layer3', 'layer4']
    >>> info.widths
    (3, 64, 64, 128, 256, 512)
    >>> print(info)  # doctest: +NORMALIZE_WHITESPACE
    resnet18 (torchvision): 11.7 M parameters with head, 1.81 G multiply-accumulates ...
    """
    name, params, metadata = str(backbone), dict(backbone_params or {}), None
    if name.endswith(".safetensors"):
        metadata = read_metadata(name)
    architecture = named_architecture(name, metadata)
    offers = tuple(architecture.offers().values())
    if metadata:
        params = {**metadata["params"], **params}
        offers = (
            WeightsOffer(
                name="default",
                location=name,
                input=InputSpec.from_mapping(metadata["input"]),
                licence=metadata["licence"],
                n_bytes=0,
            ),
        )
    elif offers:
        params = {**dict(offers[0].params), **params}
    model = _without_values(architecture, params)
    structure = architecture.structure(model)
    input_spec = offers[0].input if offers else architecture.input()
    input_spec = input_spec.at(
        structure.image_size or (None if metadata else structure.default_size)
    )
    parts = cut_into_stages(model, structure.stages)
    n_stages = len(parts)
    if structure.pre_logits:
        parts[PRE_LOGITS] = PreLogits(*modules_of(model, structure.pre_logits))
    infos = _stage_infos(parts, input_spec.size)
    own = not params or params == dict(offers[0].params if offers else ())
    return BackboneInfo(
        name=name,
        architecture=architecture.name,
        source="file" if metadata else architecture.source,
        n_params=(architecture.published_params() if own else None) or _size(model),
        n_macs=sum(info.n_macs for info in infos),
        input=input_spec,
        image_size=structure.image_size,
        stages=infos[:n_stages],
        pre_logits=infos[n_stages] if structure.pre_logits else None,
        weights=offers,
    )


def _without_values(architecture: Architecture, params: Mapping[str, Any]) -> nn.Module:
    if architecture.source == "registered":
        return architecture.random(params).to("meta").eval()
    try:
        return architecture.empty(params).to("meta").eval()
    except RuntimeError:  # some of timm's networks run a part of themselves while being built
        return architecture.random(params).to("meta").eval()


def _stage_infos(stages: Mapping[str, nn.Module], size: int) -> tuple[StageInfo, ...]:
    x = torch.empty(1, 3, size, size, device="meta")
    infos = []
    for name, stage in stages.items():
        x, n_macs = count_macs(stage.eval(), x)
        infos.append(
            StageInfo(
                name=name,
                width=x.shape[2] if x.ndim == 3 else x.shape[1],
                activation=tuple(x.shape[1:]),
                n_params=_size(stage),
                n_macs=n_macs,
            )
        )
    return tuple(infos)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def n_params(architecture: Architecture, params: Mapping[str, Any] | None = None) -> int:
    """Return the parameters of a whole network with its head, as published where it is."""
    published = None if params else architecture.published_params()
    return _size(_without_values(architecture, params or {})) if published is None else published


def _known_params(architecture: Architecture) -> int | None:
    """Return what is known without building a large network; the embedded one is small."""
    return (
        n_params(architecture)
        if architecture.source == "embedded"
        else (architecture.published_params())
    )


def _works_offline(architecture: Architecture) -> bool:
    offer = next(iter(architecture.offers().values()), None)
    return offer is None or architecture.is_downloaded(offer)


def _offers_table(offers: Iterable[WeightsOffer]) -> _Table:
    rows = [
        (
            offer.name,
            offer.input.size,
            _top1(offer.top1),
            count(offer.n_bytes, "B"),
            offer.licence,
        )
        for offer in offers
    ]
    return ("weights", "pixels", "top-1", "download", "licence"), rows


def _cells(stage: StageInfo) -> tuple:
    return (
        stage.name,
        stage.width,
        _shape(stage.activation),
        count(stage.n_params),
        count(stage.n_macs),
    )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _top1(top1: float | None) -> str | None:
    return None if top1 is None else f"{top1:.1f}"
