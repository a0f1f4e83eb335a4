"""The layers of a Keras network as plain records, the same in every process and backend."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

IMAGES = "images"


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a Keras network, as its configuration describes it.

    Attributes
    ----------
    name : str
        The same in every process.
    kind : str
        The name of its class.
    config : dict
    inputs : tuple of str or float
        The names of layers, and numbers.
    n_dims : int
        Dimensions of its first input.
    key : str
        Where a file of weights has it.
    shapes : tuple of tuple
        Of its weights.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    inputs: tuple[str | float, ...]
    n_dims: int
    key: str
    shapes: tuple[tuple[int, ...], ...]


def read_layers(model: Any) -> list[KerasLayer]:
    """Return the layers of a functional network, in the order in which they are called.

    Its input is called `IMAGES`; its output is that of the last layer.

    Keras numbers the layers that a network does not name, throughout a process: what is
    "conv2d_3" in one process is "conv2d_97" in another. They are numbered by network here.
    """
    config = model.get_config()
    renamed = _process_names(config["layers"])
    keys = _keys(model, "layers")
    own_layers = {layer.name: layer for layer in model.layers}  # without operations such as x + 3
    layers: dict[str, KerasLayer] = {}
    aliases: dict[str, str] = {}
    for entry in config["layers"]:
        name, kind = entry["name"], entry["class_name"]
        if kind == "InputLayer":
            aliases[name] = IMAGES
            continue
        inputs, n_dims = _inputs(entry)
        own = own_layers.get(name)
        own_inputs = tuple(aliases.get(i, i) if isinstance(i, str) else i for i in inputs)
        if kind == "Sequential":
            parts = list(_sequential(own, keys[name], own_inputs, n_dims))
            aliases[name] = parts[-1].name
        else:
            key, shapes = keys.get(name, ""), _shapes(own)
            parts = [
                KerasLayer(renamed[name], kind, entry["config"], own_inputs, n_dims, key, shapes)
            ]
            aliases[name] = renamed[name]
        layers.update({part.name: part for part in parts})
    output = config["output_layers"][0]
    ordered = _in_order(layers)
    if ordered[-1].name != aliases[output]:
        raise ValueError(f"{model.name} ends with several layers, which can't be translated")
    return ordered


def with_layer(layers: Iterable[KerasLayer], after: str, new: KerasLayer) -> list[KerasLayer]:
    """Return layers with a new one between the layer `after` and those that read it."""
    found = []
    for layer in layers:
        inputs = tuple(new.name if name == after else name for name in layer.inputs)
        found.append(replace(layer, inputs=inputs))
        if layer.name == after:
            found.append(replace(new, inputs=(after,)))
    return found


def layers_by_key(model: Any, prefix: str = "layers") -> dict[str, Any]:
    """Return the layers of a network, and of those nested in it, by `KerasLayer.key`."""
    keys, found = _keys(model, prefix), {}
    for layer in model.layers:
        found[keys[layer.name]] = layer
        if hasattr(layer, "layers"):
            found.update(layers_by_key(layer, f"{keys[layer.name]}/layers"))
    return found


def _process_names(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    numbers: Counter[str] = Counter()
    renamed = {}
    for entry in entries:
        kind, name = _snake_case(entry["class_name"]), entry["name"]
        if re.fullmatch(rf"{kind}(_\d+)?", name):
            renamed[name] = f"{kind}_{numbers[kind]}" if numbers[kind] else kind
            numbers[kind] += 1
        else:
            renamed[name] = re.sub(r"[./]", "_", name)
    return renamed


def _snake_case(name: str) -> str:
    """Return the name that Keras gives to layers of a class, and to their groups in files."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _keys(model: Any, prefix: str) -> dict[str, str]:
    """Return where a file of weights has each layer: under its class and a number."""
    numbers: Counter[str] = Counter()
    keys = {}
    for layer in model.layers:
        kind = _snake_case(type(layer).__name__)
        keys[layer.name] = (
            f"{prefix}/{kind}_{numbers[kind]}" if numbers[kind] else (f"{prefix}/{kind}")
        )
        numbers[kind] += 1
    return keys


def _shapes(layer: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(weight.shape) for weight in getattr(layer, "weights", ()))


def _inputs(entry: Mapping[str, Any]) -> tuple[tuple[str | float, ...], int]:
    """Return the inputs of a layer's only call, and the dimensions of the first."""
    if len(entry["inbound_nodes"]) != 1:
        raise ValueError(f"the layer {entry['name']!r} of Keras is used more than once")
    (node,) = entry["inbound_nodes"]
    inputs: list[str | float] = []
    n_dims = 0
    for value in _flat(node["args"]):
        if isinstance(value, Mapping):
            inputs.append(value["config"]["keras_history"][0])
            n_dims = n_dims or len(value["config"]["shape"])
        else:
            inputs.append(float(value))
    return tuple(inputs), n_dims


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _sequential(
    model: Any, key: str, inputs: tuple[str | float, ...], n_dims: int
) -> Iterator[KerasLayer]:
    keys = _keys(model, f"{key}/layers")
    for layer in model.layers:
        kind, config = type(layer).__name__, layer.get_config()
        yield KerasLayer(layer.name, kind, config, inputs, n_dims, keys[layer.name], _shapes(layer))
        inputs = (layer.name,)


def _in_order(layers: Mapping[str, KerasLayer]) -> list[KerasLayer]:
    """Return layers, each after those that it reads; otherwise as they were."""
    done: dict[str, KerasLayer] = {}
    waiting = list(layers.values())
    while waiting:
        ready = [
            layer
            for layer in waiting
            if all(i in done or i == IMAGES for i in layer.inputs if isinstance(i, str))
        ]
        # one at a time: a branch is followed before the next begins
        done[ready[0].name] = ready[0]
        waiting.remove(ready[0])
    return list(done.values())
