"""The state of a trained net in a saved estimator, as arrays and plain values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from .._locking import own_random_state
from ..backbones._weights import arrays_of, load_arrays
from ._adaptation import StandardiseDomains
from ._config import HeadParameter
from ._head import Standardise, TrainablePart, make_head
from ._net import TransferNet, make_net, records
from ._optim import make_loss
from ._targets import Targets


def net_state(net: TransferNet) -> dict[str, Any]:
    """Return the state of a net for `restored_net`, without the weights of the stages.

    These are saved with the backbone. The state holds no object of torch or skorch.
    """
    head, probe = net.module_.head, net.module_.probe
    return {
        "probe": None if probe is None else arrays_of(probe),
        "probe_weight": net.module_.probe_weight,
        "head": arrays_of(head),
        # that of the head, which a later fit trains further, whatever the parameter is then
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
    """Return the net on the CPU, ready to predict or to be trained further.

    `head` is the estimator's parameter: a callable is called again for the module.
    """
    part = TrainablePart(stages, _head(state, head, targets), state["batch_norm"])
    if state["probe"] is not None:
        part.add_probe(state["probe_weight"])
        assert part.probe is not None
        load_arrays(part.probe, state["probe"], "the linear probe")
    # the order in memory that it was trained in: another one changes the order of summation
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
    # The first weights are replaced. On the meta device none are drawn; a callable may need
    # a real one, and then other threads must not draw from torch's generator meanwhile.
    with own_random_state() if callable(head) else torch.device("meta"):
        module = make_head(head, width, targets.n_outputs, state["dropout"])
    start = np.zeros(width), np.ones(width)
    is_by_domain = "0.target_mean" in arrays
    standardise = StandardiseDomains(start, start) if is_by_domain else Standardise(*start)
    made = nn.Sequential(standardise, module)
    load_arrays(made, arrays, f"head={head!r}")
    return made
