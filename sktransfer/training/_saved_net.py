"""A trained net in a saved estimator: arrays and plain values, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ..backbones._weights import arrays_of, load_arrays
from ._config import HeadParameter
from ._head import Standardise, TrainablePart, make_head
from ._net import TransferNet, make_net, records
from ._optim import make_loss
from ._targets import Targets


def net_state(net: TransferNet) -> dict[str, Any]:
    """Return what `restored_net` needs, beside the stages, whose weights are the backbone's.

    Nothing of torch's or skorch's is in it: no module, no optimizer, no device.
    """
    head = net.module_.head
    return {
        "head": arrays_of(head),
        # that of the head, which a later fit with another parameter goes on with
        "dropout": next((part.p for part in head.modules() if isinstance(part, nn.Dropout)), 0.0),
        "batch_norm": net.module_.batch_norm,
        "config": net.config,
        "n_epochs": net.n_epochs,
        "batch_size": net.batch_size,
        "seed": net.seed,
        "history": records(net),
    }


def restored_net(
    state: Mapping[str, Any], stages: nn.Module, head: HeadParameter, targets: Targets
) -> TransferNet:
    """Return the net on the CPU, ready to predict, or for training to go on with.

    `head` is the estimator's parameter: a callable is called again for the module.
    """
    part = TrainablePart(stages, _head(state, head, targets), state["batch_norm"])
    # as it was trained: another order in memory is another order of summation
    part = part.to(memory_format=torch.channels_last).eval()
    config = state["config"]
    net = make_net(
        part,
        make_loss(targets, config),
        config,
        n_epochs=state["n_epochs"],
        batch_size=state["batch_size"],
        seed=state["seed"],
        device=torch.device("cpu"),
    ).initialize()
    for record in state["history"]:
        net.history.new_epoch()
        for name, value in record.items():
            net.history.record(name, value)
    return net


def _head(state: Mapping[str, Any], head: HeadParameter, targets: Targets) -> nn.Module:
    arrays = state["head"]
    width = len(arrays["0.mean"])
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, and replaced
        module = make_head(head, width, targets.n_outputs, state["dropout"])
    made = nn.Sequential(Standardise(np.zeros(width), np.ones(width)), module)
    load_arrays(made, arrays, f"head={head!r}")
    return made
