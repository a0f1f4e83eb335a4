"""A fitted estimator as one ONNX file: 8-bit images in, rows out."""

import copy
import inspect
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from ._base import installed_versions
from ._files import atomic_write
from ._spec import BackboneSpec
from .backbones._stages import Normalise
from .images._preprocess import Resampling

_OPSET = 18  # the first in which torch's exporter writes
_AXES = ("n", "height", "width")  # of any size

# Between torch and onnxruntime, as a share of the largest value of a row: what float32
# leaves of a deep network when its sums run in another order.
_TOLERANCE = 1e-4
# One image as the exporter saw none, and several; wide, high, and so long that it is
# shown whole.
_TRIALS = ((1, 61, 93), (3, 90, 50), (1, 20, 150))
_MOST_BYTES = 2**31  # of a protobuf message


def write_onnx(
    path: str | os.PathLike,
    parts: Sequence[nn.Module],
    output: str,
    spec: BackboneSpec,
    image_size: int,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network and its preprocessing, and compare the file's outputs with torch.

    Parameters
    ----------
    path : str or path-like
    parts : sequence of nn.Module
        Called one after the other, the first with the network's 8-bit squares. Copies
        are exported.
    output : str
        Name of the output of the last part.
    spec : BackboneSpec
    image_size : int
        Side of the square, in pixels.
    metadata : dict of str to str, default=None
        Further metadata of the file, beside that of the backbone.

    Raises
    ------
    ImportError
        When the extra is not installed.
    ValueError
        When the path is not allowed, or the network is too large.
    RuntimeError
        When torch can't express the network in ONNX, or the outputs differ.
    """
    _import_extra()
    path = _checked(Path(path))
    network = _plain(nn.Sequential(Resampling(spec.input.at(image_size)), *parts, _AsFloat32()))
    n_bytes = sum(value.nbytes for value in network.state_dict().values())
    if n_bytes >= _MOST_BYTES:
        raise ValueError(
            f"backbone={spec.name!r} has {n_bytes / 2**30:.1f} GiB of weights, and a file of "
            "ONNX holds less than 2; use a smaller one"
        )
    title = f"backbone={spec.name!r} with torch {torch.__version__}"
    content = _exported(network, output, {**_backbone_metadata(spec), **(metadata or {})}, title)
    _compare(content, network, title)
    with atomic_write(path) as file:
        file.write(content)


def _backbone_metadata(spec: BackboneSpec) -> dict[str, str]:
    return {
        "sktransfer": installed_versions()["sktransfer"],
        "input": "8-bit RGB (n, height, width, 3), upright and in sRGB, of any height and width",
        "backbone": spec.name,
        "architecture": spec.architecture,
        "weights": str(spec.weights),
        "digest": spec.digest,
        "source": spec.source,
        "licence": spec.licence,
    }


def _import_extra() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError as error:
        raise ImportError(
            f"to_onnx needs {error.name}, an extra: pip install sktransfer[onnx]"
        ) from error
    return onnx, onnxruntime


def _checked(path: Path) -> Path:
    if path.suffix != ".onnx":
        raise ValueError(f"path must end in '.onnx', got {os.fspath(path)!r}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path={os.fspath(path)!r}: there is no folder {folder}")
    return path


class MeanWithMirrored(nn.Module):
    """The mean of a network's outputs for images and for their mirror images."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.network(images) + self.network(images.flip(-1))) / 2


class _AsFloat32(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.float()


class _ScaleAndShift(nn.Module):
    """`Normalise` in two operations: torch 2.6 can't export its one for any n."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, normalise: Normalise):
        super().__init__()
        self.register_buffer("scale", normalise.scale)
        self.register_buffer("shift", normalise.shift)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.scale.dtype) * self.scale + self.shift


def _plain(network: nn.Module) -> nn.Module:
    """Return a copy to export: on the CPU, in evaluation mode, laid out plainly."""
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    network = network.to(memory_format=torch.contiguous_format)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Normalise):
                setattr(parent, name, _ScaleAndShift(child))
    return network


def _exported(network: nn.Module, output: str, metadata: Mapping[str, str], title: str) -> bytes:
    onnx, _ = _import_extra()
    # two images, not one: of one the exporter would take the number for fixed
    example = torch.zeros((2, 48, 80, 3), dtype=torch.uint8)
    with torch.inference_mode():
        width = network(example).shape[1]
    try:
        with _silence():
            model = onnx.load_from_string(_translated(network, example, output))
    except (torch.onnx.OnnxExporterError, torch.onnx.errors.UnsupportedOperatorError) as error:
        raise RuntimeError(
            f"{title} can't be expressed in ONNX ({str(error).splitlines()[0]}); a newer torch may"
        ) from error
    _tidy(model.graph, width)
    model.producer_name = "sktransfer"
    onnx.helper.set_model_props(model, dict(metadata))
    return model.SerializeToString()


def _translated(network: nn.Module, example: torch.Tensor, output: str) -> bytes:
    """Return what torch's own choice of its two exporters makes of a network."""
    names: dict[str, Any] = {
        "input_names": ["images"],
        "output_names": [output],
        "opset_version": _OPSET,
    }
    if inspect.signature(torch.onnx.export).parameters["dynamo"].default:
        any_size = dict.fromkeys(range(len(_AXES)), torch.export.Dim.AUTO)
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=(any_size,), verbose=False, **names
        )
        assert program is not None  # without a file to write to
        return program.model_proto.SerializeToString()
    buffer = io.BytesIO()
    axes = {"images": dict(enumerate(_AXES)), output: {0: _AXES[0]}}
    file: Any = buffer  # which only the annotations of `export` refuse
    torch.onnx.export(network, (example,), file, dynamo=False, dynamic_axes=axes, **names)
    return buffer.getvalue()


@contextmanager
def _silence() -> Iterator[None]:
    """Ignore warnings of torch's exporters about code that is checked afterwards."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # has no counterpart in ONNX
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _tidy(graph, width: int) -> None:
    """Name the axes, and remove torch's debugging metadata.

    It contains the paths of the Python files that were run.
    """
    (images,), (rows,) = graph.input, graph.output
    for value, axes in ((images, (*_AXES, 3)), (rows, (_AXES[0], width))):
        del value.metadata_props[:]
        for dim, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
            if isinstance(axis, str):
                dim.dim_param = axis
            else:
                dim.dim_value = axis
    del graph.value_info[:], graph.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""


def _compare(content: bytes, network: nn.Module, title: str) -> None:
    """Raise when the outputs of onnxruntime and of the network differ."""
    _, onnxruntime = _import_extra()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and need not be printed too
    generator = np.random.default_rng(0)
    for n, height, width in _TRIALS:
        images = generator.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(images)).numpy()
        wrong = f"{title} is exported wrongly: of {n} images of {height} x {width} pixels "
        try:
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            (rows,) = session.run(None, {"images": images})
        except Exception as error:  # onnxruntime's own have no class in common
            raise RuntimeError(f"{wrong}onnxruntime says {error}") from error
        difference = np.abs(rows - expected).max() if rows.shape == expected.shape else np.inf
        if difference > _TOLERANCE * np.abs(expected).max():
            raise RuntimeError(f"{wrong}it makes rows that differ by {difference:.1g}")
