"""Find the stages of a network by tracing its own forward.

A network of unknown structure is traced once, without tracing into its layers. The trace
is a list of calls; it can be cut wherever a single activation connects the calls before
and after. Cuts are grouped so that a stage is one
resolution of the maps, or a quarter of the blocks of a transformer.
"""

import inspect
import operator
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from .._locking import ForkSafeLock

# fx puts its own call into every module of the process while it traces
_tracing = ForkSafeLock()

_N_GROUPS = 4  # of equal blocks
_N_STAGES_AT_LEAST, _N_STAGES_AT_MOST = 3, 8


@dataclass(frozen=True)
class TracedStage:
    """A stage made from a part of a trace; a step of a stage table.

    Called with a network, it returns a module over that network's own layers.
    """

    graph: fx.Graph

    def __call__(self, model: nn.Module) -> nn.Module:
        with _tracing:
            return fx.GraphModule(model, self.graph)

    def __deepcopy__(self, memo: dict) -> "TracedStage":
        return self  # never changed, and slow to copy


@dataclass(frozen=True)
class _Cut:
    """A position in a trace where one activation of known shape connects both sides."""

    node: fx.Node
    name: str
    shape: torch.Size
    channels_last: bool

    @property
    def resolution(self) -> tuple[int, ...]:
        if len(self.shape) == 3:
            return (self.shape[1],)
        return tuple(self.shape[1:3] if self.channels_last else self.shape[2:])


def trace_stages(
    model: nn.Module, method: str, size: int, n_prefix_tokens: int = 0
) -> tuple[dict[str, tuple[TracedStage]], int | None]:
    """Return the stages of ``model.<method>``, each under the name of the layer it ends with.

    The second value is the only image size for which the stages are valid, None where they
    are valid for all sizes that the network takes.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    method : str
        The method that takes normalised images to the last activation.
    size : int
        Pixels of a square image that the network takes.
    n_prefix_tokens : int
        Tokens before those of the patches, in a network of tokens.

    Raises
    ------
    ValueError
        When the method can't be traced, or nothing in it can be cut.
    """
    best: dict[str, tuple[TracedStage]] = {}
    best_size: int | None = None
    failure = "nothing in it can be cut"
    for fixed in (False, True):
        tracer = _Layers(method, _images(model, size), fixed)
        try:
            with _tracing:
                graph = tracer.trace(model, concrete_args=_defaults(getattr(model, method)))
        except Exception as error:  # networks fail to trace in ways of their own
            failure = str(error)
            continue
        if not isinstance(_result(graph), fx.Node):
            failure = "it gives several activations"
            break
        stages = _stages(model, graph, tracer.values, n_prefix_tokens)
        if len(stages) > len(best):
            best, best_size = stages, size if fixed else None
        if len(best) >= _N_STAGES_AT_LEAST:
            break
    if not best:
        raise ValueError(f"{type(model).__name__}.{method} can't be cut into stages: {failure}")
    return best, best_size


def _stages(
    model: nn.Module, graph: fx.Graph, values: dict[fx.Node, Any], n_prefix_tokens: int
) -> dict[str, tuple[TracedStage]]:
    _prune(graph)
    cuts = _cuts(graph, values, n_prefix_tokens)
    stages: dict[str, tuple[TracedStage]] = {}
    previous = None
    for cut in _ends(cuts, model):
        stages[_free(cut.name, stages)] = (TracedStage(_part(graph, previous, cut)),)
        previous = cut
    return stages


class _Layers(fx.Tracer):
    """Trace one method of a network; every module that is not a container is a layer.

    Parameters
    ----------
    method : str
    images : torch.Tensor
        Images without values, from which the shape of every value is found.
    fixed : bool
        Whether heights, widths and channels are constants of the trace. It is then valid
        for images of this size only, but code that reads these numbers can be traced.
        The number of images is never fixed.
    """

    def __init__(self, method: str, images: torch.Tensor, fixed: bool):
        super().__init__()
        self.traced_func_name = method
        self.images = images
        self.fixed = fixed
        self.values: dict[fx.Node, Any] = {}
        self.computing = False
        self.thread = threading.get_ident()

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return type(module).forward is not nn.Sequential.forward

    def create_node(
        self,
        kind: str,
        target: Any,
        args: tuple,
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
    ) -> fx.Node:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if kind != "output":
            self.values[node] = self._value(node)
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        value = self.values.get(node)
        if self.fixed and isinstance(value, torch.Tensor) and value.ndim:
            return _Sized(node, self)
        return super().proxy(node)

    def _value(self, node: fx.Node) -> object:
        target: Any = node.target
        value_of: Callable[[fx.Node], Any] = self.values.__getitem__
        args, kwargs = cast(Any, fx.node.map_arg((node.args, node.kwargs), value_of))
        if node.op == "placeholder":
            return self.images if not self.values else None
        if "assert" in getattr(node.target, "__name__", ""):
            return None
        self.computing = True
        try:
            if node.op == "get_attr":
                return operator.attrgetter(target)(self.root)
            with torch.no_grad(), _computing_nothing(self.images):
                if node.op == "call_module":
                    return self.root.get_submodule(target)(*args, **kwargs)
                if node.op == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                return target(*args, **kwargs)
        finally:
            self.computing = False

    # While it traces, fx sends every call of a module and every attribute of one here, of all
    # threads: those of others are not part of the trace.
    def call_module(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        if self.computing or self.thread != threading.get_ident():
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if self.computing or self.thread != threading.get_ident():
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _Sized(fx.Proxy):
    """A traced tensor whose shape is numbers, but for the number of images."""

    tracer: _Layers

    @property
    def shape(self) -> tuple:
        sizes = tuple(self.tracer.values[self.node].shape)
        images = self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return (images, *sizes[1:])

    @property
    def ndim(self) -> int:
        return self.tracer.values[self.node].ndim

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]


def _defaults(method: Callable[..., Any]) -> dict[str, object]:
    """Return all arguments after the images, as their defaults."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _images(model: nn.Module, size: int) -> torch.Tensor:
    """Return two images that hold no values, where the network's parameters are."""
    images = torch.empty(2, 3, size, size, device=next(model.parameters()).device)
    if images.device.type == "meta":
        return images
    return FakeTensorMode(allow_non_fake_inputs=True).from_tensor(images)


def _computing_nothing(images: torch.Tensor) -> AbstractContextManager:
    """Return the context in which what is computed from `images` has a shape only."""
    return getattr(images, "fake_mode", None) or nullcontext()


def _prune(graph: fx.Graph) -> None:
    """Remove nodes that the result does not depend on: other arguments, assertions."""
    images = next(iter(graph.nodes))
    needed = _ancestors(_result(graph))
    for node in reversed(graph.nodes):
        if node not in needed and node is not images and node.op != "output":
            graph.erase_node(node)


def _result(graph: fx.Graph) -> fx.Node:
    (result,) = next(node for node in graph.nodes if node.op == "output").args
    return result


def _cuts(graph: fx.Graph, values: dict, n_prefix_tokens: int) -> list[_Cut]:
    """Return the places where a single activation connects both sides, in order."""
    result = _result(graph)
    order = []  # what depends on the images
    for node in graph.nodes:
        if node.op == "placeholder" or any(argument in order for argument in node.all_input_nodes):
            order.append(node)
    order.remove(next(node for node in graph.nodes if node.op == "output"))
    position = {node: i for i, node in enumerate(order)}
    cuts, open_until, layer = [], 0, "input"
    for i, node in enumerate(order):
        if node.op == "call_module":
            layer = str(node.target)
        alone = open_until <= i  # nothing made before this node is used after it
        uses = [position[user] for user in node.users if user in position]
        open_until = max([open_until, *uses])
        if alone and node.op != "placeholder" and _is_activation(values[node]):
            value = values[node]
            # tokens of another number still lack their prefix
            if not n_prefix_tokens or value.shape[1] == values[result].shape[1]:
                cuts.append(_Cut(node, layer, value.shape, _channels_last(value)))
    return cuts


def _is_activation(value: object) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.ndim in (3, 4)
        and len(value) == 2  # the images of the batch of `_shapes`
        and value.is_floating_point()
    )


def _channels_last(value: torch.Tensor) -> bool:
    """Tell (n, H, W, C) from (n, C, H, W), given that the image is square."""
    return value.ndim == 4 and value.shape[1] == value.shape[2] != value.shape[3]


def _ends(cuts: list[_Cut], model: nn.Module) -> list[_Cut]:
    """Choose the few cuts that end a stage."""
    ends = [
        cut
        for cut, following in zip(cuts, [*cuts[1:], None], strict=True)
        if following is None or cut.resolution != following.resolution
    ]
    if len(ends) < _N_STAGES_AT_LEAST and cuts:
        ends = ends[:-1] + _quarters(cuts, model)
    return ends[:1] + ends[1:][-_N_STAGES_AT_MOST + 1 :]


def _quarters(cuts: list[_Cut], model: nn.Module) -> list[_Cut]:
    """Cut a transformer, of one resolution throughout, after a quarter of its blocks each."""
    cuts = [cut for cut in cuts if cut.resolution == cuts[-1].resolution]
    kinds = [
        type(model.get_submodule(str(cut.node.target))) if cut.node.op == "call_module" else None
        for cut in cuts
    ]
    modules = Counter(kind for kind in kinds if kind not in (None, nn.Identity))
    if not modules:
        return cuts[-1:]
    (block, n_blocks), *_ = modules.most_common(1)
    blocks = [i for i, kind in enumerate(kinds) if kind is block]
    n_groups = min(_N_GROUPS, n_blocks)
    chosen = [blocks[n_blocks * q // n_groups - 1] for q in range(1, n_groups)]
    embedding = [blocks[0] - 1] if blocks[0] else []
    return [cuts[i] for i in (*embedding, *chosen, len(cuts) - 1)]


def _part(graph: fx.Graph, start: _Cut | None, end: _Cut) -> fx.Graph:
    """Return the part of a trace between two cuts; its output is channels-first."""
    part = fx.Graph()
    images = next(iter(graph.nodes))
    x = part.placeholder("x")
    if start is not None and start.channels_last:
        x = part.call_method("permute", (x, 0, 2, 3, 1))
    made = {images if start is None else start.node: x}
    wanted = _ancestors(end.node, stop=made)
    for node in graph.nodes:
        if node in wanted and node not in made:
            made[node] = part.node_copy(node, lambda argument: made[argument])
    y = made[end.node]
    if end.channels_last:
        y = part.call_method("permute", (y, 0, 3, 1, 2))
    part.output(y)
    part.lint()
    return part


def _ancestors(node: fx.Node, stop: Iterable[fx.Node] = ()) -> set[fx.Node]:
    """Return a node and all that it is computed from, not looking behind `stop`."""
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            if node not in stop:
                waiting += node.all_input_nodes
    return found


def _free(name: str, taken: Iterable[str]) -> str:
    return name if name not in taken else f"{name}+"
