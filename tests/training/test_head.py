import pytest
import torch
from torch import nn

from sktransfer.training._head import make_head


def test_a_linear_head_is_one_layer():
    head = make_head("linear", 5, 3)
    assert [type(module) for module in head] == [nn.Linear]
    assert head(torch.rand(2, 5)).shape == (2, 3)


def test_widths_are_those_of_the_hidden_layers():
    head = make_head((7, 6), 5, 3)
    linears = [module for module in head if isinstance(module, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(5, 7), (7, 6), (6, 3)]


def test_dropout_comes_before_each_linear_layer():
    kinds = [type(module) for module in make_head((7,), 5, 3, dropout=0.2)]
    assert kinds == [nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


def test_a_callable_makes_the_head():
    head = make_head(nn.Linear, 5, 3)
    assert head(torch.rand(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("head", [lambda n_in, n_out: "no module", lambda n_in, n_out: None])
def test_a_callable_that_makes_no_module_is_an_error(head):
    with pytest.raises(TypeError, match=r"must return an nn\.Module"):
        make_head(head, 5, 3)


def test_a_callable_whose_head_has_the_wrong_width_is_an_error():
    with pytest.raises(ValueError, match=r"maps rows \(2, 5\) to \(2, 9\)"):
        make_head(lambda n_in, n_out: nn.Linear(n_in, 9), 5, 3)
