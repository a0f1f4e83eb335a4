"""Where architectures come from: each source is a module with `names` and `architecture`."""

import multiprocessing
from difflib import get_close_matches
from typing import Any

from ...exceptions import WeightsError
from .._architecture import Architecture
from . import _embedded, _keras, _open_clip, _registered, _timm, _torchvision

SOURCES = {
    "embedded": _embedded,
    "keras": _keras,
    "openclip": _open_clip,
    "registered": _registered,
    "timm": _timm,
    "torchvision": _torchvision,
}

OF_EXTRAS = {"timm": _timm, "openclip": _open_clip, "keras": _keras}
_FILES_OF_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt")


def names(source: str | None = None) -> list[str]:
    """Return the names of one source; or of all that need no extra."""
    wanted = [name for name in SOURCES if name not in OF_EXTRAS] if source is None else [source]
    return sorted(name for key in wanted for name in SOURCES[key].names())


def names_on_disk() -> list[str]:
    """Return names that may work without network: of extras, those with weights here."""
    downloaded = [name for source in OF_EXTRAS.values() for name in source.downloaded_names()]
    return sorted([*names(), *downloaded])


def find_architecture(name: str) -> Architecture | None:
    """Return the architecture of that name, None where no source has it."""
    for source in SOURCES.values():
        if found := source.architecture(name):
            return found
    return None


def named_architecture(name: str, metadata: dict[str, Any] | None) -> Architecture:
    """Return the architecture that a name, or a file's metadata, asks for."""
    wanted = metadata["architecture"] if metadata else name
    architecture = find_architecture(wanted)
    if architecture is not None:
        return architecture
    prefix = wanted.partition(":")[0]
    known = names(prefix if prefix in OF_EXTRAS else None)
    like = [name for source in OF_EXTRAS.values() for name in source.names_like(wanted)]
    close = like or get_close_matches(wanted, known) or known[:3]
    listed = f"{', '.join(close)} and others, see list_backbones()"
    if metadata:
        raise WeightsError(
            f"backbone={name!r} asks for the architecture {wanted!r}, which this version does not "
            f"have; it has {listed}"
        )
    if name.endswith(_keras.ENDINGS):
        raise ValueError(
            f"backbone={name!r} is a file of Keras, of which only weights are read; name the "
            f"network of keras.applications, and give the file as weights: "
            f"backbone='keras:ResNet50', weights={name!r}"
        )
    if name.endswith(_FILES_OF_WEIGHTS):
        raise ValueError(
            f"backbone={name!r} is a file of weights, which does not say what network it belongs "
            f"to; name the network, and give the file as weights: backbone='resnet50', "
            f"weights={name!r}"
        )
    hint = ""
    if multiprocessing.current_process().name != "MainProcess":
        hint = (
            ". This is a worker process: where the backbone is your own, each worker has to call "
            "register_backbone too, as with joblib.parallel_config('loky', initializer=function)"
        )
    raise ValueError(
        f"backbone={name!r} is unknown; allowed are the path of a self-describing .safetensors "
        f"file, {listed}{hint}"
    )
