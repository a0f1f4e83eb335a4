"""Names of choices: as many as there are choices, and the same in any process."""

import collections
import functools
import operator
import re
import subprocess
import sys
import threading
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from sktransfer.training._naming import name_of


def name(value):
    return name_of(value, "head")


def by_closure(p):
    return lambda n_in, n_out: nn.Sequential(nn.Dropout(p), nn.Linear(n_in, n_out))


def by_default(p):
    def head(n_in, n_out, p=p):
        return nn.Sequential(nn.Dropout(p), nn.Linear(n_in, n_out))

    return head


def by_keyword_default(p):
    def head(n_in, n_out, *, p=p):
        return nn.Sequential(nn.Dropout(p), nn.Linear(n_in, n_out))

    return head


def by_constant(p):
    return eval(f"lambda n_in, n_out: nn.Dropout({p})", {"nn": nn})


def by_nested_constant(p):
    return eval(f"lambda n_in, n_out: [nn.Dropout({p}) for _ in range(2)]", {"nn": nn})


def by_global(p):
    return eval("lambda n_in, n_out: nn.Dropout(p)", {"nn": nn, "p": p})


def by_global_of_a_called_function(p):
    inner = eval("lambda: nn.Dropout(p)", {"nn": nn, "p": p})
    return eval("lambda n_in, n_out: inner()", {"inner": inner})


def by_module_attribute(p):
    settings = type(sys)("settings_of_a_user")
    settings.p = p
    return eval("lambda n_in, n_out: nn.Dropout(settings.p)", {"nn": nn, "settings": settings})


def by_nested_closure(p):
    def drop():
        return nn.Dropout(p)

    return lambda n_in, n_out: nn.Sequential(drop(), nn.Linear(n_in, n_out))


def by_function_attribute(p):
    def head(n_in, n_out):
        return nn.Dropout(head.p)

    head.p = p
    return head


def by_partial(p):
    return functools.partial(lambda n_in, n_out, p: nn.Dropout(p), p=p)


class Maker:
    def __init__(self, p):
        self.p = p

    def make(self, n_in, n_out):
        return nn.Dropout(self.p)

    def __call__(self, n_in, n_out):
        return nn.Dropout(self.p)


def by_bound_method(p):
    return Maker(p).make


def by_nested_instance(p):
    return Maker([{"p": Maker(p)}])


class Slotted:
    __slots__ = ("p",)

    def __init__(self, p):
        self.p = p


@dataclass
class Record:
    p: float
    others: list = None


def by_local_class(p):
    class Head(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.drop = nn.Dropout(p)

    return Head


def by_class_attribute(p):
    return type("Head", (nn.Module,), {"p": p})


def by_class_method(p):
    return type("Head", (nn.Module,), {"drop": staticmethod(by_closure(p))})


def by_property(p):
    return type("Head", (nn.Module,), {"p": property(lambda self: p)})


def by_base_class(p):
    return type("Head", (by_local_class(p),), {})


def by_cached_function(p):
    return functools.lru_cache(by_closure(p))


def by_wrapped_function(p):
    return functools.wraps(by_closure(0.0))(by_closure(p))


WAYS = [
    by_closure,
    by_default,
    by_keyword_default,
    by_constant,
    by_nested_constant,
    by_global,
    by_global_of_a_called_function,
    by_module_attribute,
    by_nested_closure,
    by_function_attribute,
    by_partial,
    by_bound_method,
    by_nested_instance,
    by_local_class,
    by_class_attribute,
    by_class_method,
    by_property,
    by_base_class,
    by_cached_function,
    by_wrapped_function,
    Maker,
    Slotted,
    Record,
    nn.Dropout,
    np.float64,
    lambda p: np.array([p, 1.0]),
    lambda p: torch.tensor([p], dtype=torch.bfloat16),
    lambda p: torch.tensor(p),
    lambda p: {"compile": p},
    lambda p: [("name", EarlyStopping(threshold=p))],
    lambda p: v2.RandomHorizontalFlip(p),
    lambda p: collections.OrderedDict(p=p),
    lambda p: frozenset([p]),
    lambda p: str(p).encode(),
]


@pytest.mark.parametrize("make", WAYS)
def test_choices_made_of_other_values_have_other_names(make):
    assert name(make(0.1)) != name(make(0.5))


@pytest.mark.parametrize("make", WAYS)
def test_a_choice_that_is_made_again_has_the_same_name(make):
    assert name(make(0.1)) == name(make(0.1))


def test_kinds_of_values_that_are_equal_are_told_apart():
    values = [1, 1.0, True, "1", b"1", (1,), [1], {1}, frozenset({1}), {1: 1}, np.float64(1), None]
    assert len({name(value) for value in values}) == len(values)


def test_the_order_of_layers_counts():
    one, other = ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)])
    assert name(collections.OrderedDict(one)) != name(collections.OrderedDict(other))


def test_an_object_whose_class_has_another_method_has_another_name():
    one, other = (type("Head", (), {"make": make})() for make in (by_closure, by_default))
    assert name(one) != name(other)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (nn.Linear, "torch.nn.modules.linear.Linear"),
        (F.dropout, "torch.nn.functional.dropout"),
        (print, "builtins.print"),
        (torch.float32, "torch.float32"),
        ("linear", "'linear'"),
        ((8, 4), "tuple(8, 4)"),
    ],
)
def test_what_is_installed_is_named_by_where_it_is_imported_from(value, expected):
    assert name(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        torch.relu,
        operator.attrgetter("weight"),
        torch.device("cpu"),
        Path("here"),
        re.compile("a+"),
        np.random.RandomState(0),
        np.random.default_rng(0),
        [].append,
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)),
        v2.Compose([v2.RandomCrop(4), v2.ColorJitter(0.1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_object_that_can_be_pickled_has_a_name(value):
    assert name(value) == name(value)


def test_functions_that_call_each_other_have_a_name():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    assert name(even) != name(odd)


def test_a_list_that_holds_itself_has_a_name():
    value = [1]
    value.append(value)
    assert name(value) != name([1])


def test_what_a_callback_learned_in_an_interrupted_fit_is_no_part_of_its_name():
    used = EarlyStopping(patience=3)
    used.misses_, used.dynamic_threshold_ = 2, 0.5
    assert name(used) == name(EarlyStopping(patience=3))

    class Odd(Callback):
        def __init__(self, limit_):
            self.limit_ = limit_

    assert name(Odd(1)) != name(Odd(2))


def imports_inside(n_in, n_out):
    import heads_of_a_user

    return heads_of_a_user.make(n_in, n_out)


def imports_installed_code_inside(n_in, n_out):
    from torch.nn import Linear

    return Linear(n_in, n_out)


def passes_a_module_on(n_in, n_out):
    return vars(user_module)["make"](n_in, n_out)


user_module = type(sys)("heads_of_a_user")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (threading.Lock(), "object of _thread.lock"),
        (Maker(threading.Lock()), "object of _thread.lock"),
        ([sys.stdout.buffer], "object of"),
        ((i for i in range(2)), "object of builtins.generator"),
        (imports_inside, "imports heads_of_a_user inside.*top of the module"),
        (passes_a_module_on, "passes the module heads_of_a_user on"),
    ],
)
def test_what_can_not_be_named_is_an_error_that_names_the_parameter(value, reason):
    with pytest.raises(
        ValueError, match=rf"(?s)callbacks=.*can't be.*{reason}.*checkpoint_dir=None"
    ):
        name_of(value, "callbacks")


def test_code_that_imports_installed_code_has_a_name():
    assert name(imports_installed_code_inside)


SCRIPT = """
import torch
from torch import nn
from sktransfer.training._naming import name_of

WORDS = {"alpha", "beta", "gamma", "delta"}

class Head(nn.Module):
    words = WORDS
    def __init__(self, n_in, n_out, p):
        super().__init__()
        self.drop = nn.Dropout(p if p in {0.1, 0.2, 0.3} else 0)

def make(p):
    return lambda n_in, n_out: Head(n_in, n_out, p)

print(name_of([make(0.1), torch.arange(3.0), nn.ReLU()], "head"))
"""


def test_a_name_is_the_same_in_another_process():
    names = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1
    assert "0x" not in names.pop()


OF_CODE = [make for make in WAYS if isinstance(make(0.1), (type, types.FunctionType, Maker))]


@pytest.mark.parametrize("make", [make for make in OF_CODE if make is not by_module_attribute])
def test_a_choice_that_was_sent_to_a_worker_has_the_same_name(make):
    cloudpickle = pytest.importorskip("cloudpickle")  # joblib and dask send code with it
    sent = cloudpickle.loads(cloudpickle.dumps(make(0.1)))
    assert name(sent) == name(make(0.1))
