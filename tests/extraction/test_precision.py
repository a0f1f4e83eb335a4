import gc
import weakref

import pytest
import torch
from torch import nn

from sktransfer.extraction import _precision
from sktransfer.extraction._precision import resolve_precision

CPU = torch.device("cpu")


class Sensitive(nn.Module):
    """Rows that are all rounding: a small difference of large values."""

    def forward(self, images):
        rows = images.float().mean((2, 3))
        product = rows @ torch.ones(3, 3)
        return (product - rows.sum(1, keepdim=True)) + 1e-3 * rows


class Robust(nn.Module):
    def forward(self, images):
        return images.float().mean((2, 3)) @ torch.eye(3)


@pytest.fixture
def hardware(monkeypatch):
    """Pretend that the hardware multiplies bfloat16."""
    monkeypatch.setattr(_precision, "_has_bfloat16", lambda device: True)
    _precision._tried.clear()
    yield
    _precision._tried.clear()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(precision):
    assert resolve_precision(precision, CPU, "any", 8, Sensitive) == precision


@pytest.mark.parametrize(("network", "expected"), [(Robust, "bfloat16"), (Sensitive, "float32")])
@pytest.mark.usefixtures("hardware")
def test_auto_is_bfloat16_where_the_rows_bear_it(network, expected):
    assert resolve_precision("auto", CPU, network.__name__, 8, network) == expected


@pytest.mark.usefixtures("hardware")
def test_a_network_is_tried_out_once():
    made = []

    def network():
        made.append(1)
        return Robust()

    for _ in range(3):
        resolve_precision("auto", CPU, "digest", 8, network)
    assert len(made) == 1


@pytest.mark.usefixtures("hardware")
def test_a_network_that_was_tried_out_is_not_kept_alive():
    network = Robust()
    kept = weakref.ref(network)
    resolve_precision("auto", CPU, "digest", 8, lambda network=network: network)
    del network
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize(("has_it", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_follows_the_hardware(monkeypatch, has_it, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it, raising=False)
    _precision._tried.clear()
    assert resolve_precision("auto", CPU, "digest", 8, Robust) == expected
