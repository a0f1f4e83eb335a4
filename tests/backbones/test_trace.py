"""Tracing a network for its stages beside other threads."""

import threading

import pytest
import torch
from torch import nn

from sktransfer.backbones._code import code_digest
from sktransfer.backbones._stages import cut_into_stages
from sktransfer.backbones._trace import trace_stages


class _Block(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = _Block(3, 4)
        self.blocks = nn.Sequential(_Block(4, 8), _Block(8, 8), _Block(8, 16))

    def forward_features(self, x):
        return self.blocks(self.stem(x))

    def forward(self, x):
        return self.forward_features(x).mean((2, 3))


def _traced():
    model = _Network().eval()
    stages, _ = trace_stages(model, "forward_features", 64)
    return model, cut_into_stages(model, stages)


def _beside(n_threads, work, other):
    """Run `work` in this thread while others repeat `other`; return what failed there."""
    done, failures = threading.Event(), []

    def repeat():
        try:
            while True:  # once at least
                other()
                if done.is_set():
                    return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return failures


def test_a_forward_pass_beside_a_trace_is_no_part_of_it():
    network = _Network().eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = network(x)
    names = list(_traced()[1])

    def forward():
        with torch.no_grad():
            torch.testing.assert_close(network(x), expected)

    def trace():
        for _ in range(30):
            assert list(_traced()[1]) == names

    assert _beside(2, trace, forward) == []


def test_two_threads_may_trace_at_once():
    names = list(_traced()[1])
    call, attribute = nn.Module.__call__, nn.Module.__getattr__

    def trace():
        for _ in range(15):
            assert list(_traced()[1]) == names

    assert _beside(2, trace, trace) == []
    # fx puts its own in their place for as long as it traces
    assert nn.Module.__call__ is call
    assert nn.Module.__getattr__ is attribute


def test_where_a_traced_stage_ends_is_code():
    model, stages = _traced()
    first, second, *rest = stages.values()
    cut_elsewhere = {"a": nn.Sequential(first, second), **dict(zip("bcd", rest, strict=False))}
    one = code_digest(model, stages, 64).split(",")
    other = code_digest(model, cut_elsewhere, 64).split(",")
    assert one[0] != other[0]
    assert one[2:] == other[1:]


def test_a_trace_changes_nothing_in_the_network():
    model, stages = _traced()
    with torch.no_grad():
        x = torch.rand(2, 3, 64, 64)
        y = x
        for stage in stages.values():
            y = stage(y)
        torch.testing.assert_close(y, model.forward_features(x))


def test_a_network_of_several_activations_is_refused():
    class Pair(_Network):
        def forward_features(self, x):
            return self.stem(x), x

    with pytest.raises(ValueError, match="can't be cut into stages: it gives several activations"):
        trace_stages(Pair().eval(), "forward_features", 64)
