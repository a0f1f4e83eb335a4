"""The digest of what each stage computes: what changes it, and what does not."""

import importlib.util
import json
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from sktransfer.backbones._bytecode import UnreadableCodeError
from sktransfer.backbones._code import code_digest, first_difference, left_as_it_is

TRACED = """
import torch
from torch import nn
from torch.nn import functional as F

SCALE = 2.0


def helper(x, power=2):
    return x.abs() ** power


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.other = nn.Conv2d(4, 4, 1)
        self.another = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.act = F.gelu
        self.table = torch.arange(5)
        self.register_buffer("shift", torch.tensor([0.5]), persistent=False)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x)))
        x = self.other(x) - self.another(x) * self.table.sum() - self.shift
        return helper(x) * SCALE + 1.5


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Block()
        self.second = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GELU(), nn.Dropout(0.1))

    def forward(self, x):
        return self.second(self.first(x))
"""
# what its values decide can't be traced: its compiled code is read
UNTRACED = TRACED.replace(
    "return helper", "x = x if x.mean() > 0 else x + 1\n        return helper"
)
CHANGES = {
    "activation function": ("F.gelu", "F.relu"),
    "default argument": ("power=2", "power=3"),
    "helper function": ("x.abs() **", "x.sin() **"),
    "constant of forward": ("+ 1.5", "+ 1.25"),
    "constant of the module": ("SCALE = 2.0", "SCALE = 3.0"),
    "epsilon": ("BatchNorm2d(4)", "BatchNorm2d(4, eps=0.1)"),
    "padding mode": ("Conv2d(3, 4, 3)", "Conv2d(3, 4, 3, padding=1, padding_mode='reflect')"),
    "roles of two weights": ("self.other(x) - self.another(x)", "self.another(x) - self.other(x)"),
    "tensor in no state dict": ("torch.arange(5)", "torch.arange(6)"),
    "buffer in no state dict": ("tensor([0.5])", "tensor([0.25])"),
}
STAGES = {"one": "first", "two": "second"}


def network(folder, source, name="net"):
    """Import a file of that text under a name of its own and return its network."""
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Net().eval()


def code(model, size=32, stages=None, **options):
    stages = stages or {name: model.get_submodule(path) for name, path in STAGES.items()}
    return code_digest(model, stages, size, **options)


@pytest.mark.parametrize("base", [TRACED, UNTRACED], ids=["traced", "untraced"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_a_stage_computes_is_another_code(base, change, tmp_path):
    old, new = CHANGES[change]
    assert old in base
    before = code(network(tmp_path, base, "before"))
    after = code(network(tmp_path, base.replace(old, new), "after"))
    assert before != after
    assert first_difference(before, after, STAGES) == "the code of stage 'one'"
    if base is TRACED:
        assert before.split(",")[1] == after.split(",")[1]


def test_a_change_of_a_later_stage_leaves_the_code_of_those_before(tmp_path):
    before = code(network(tmp_path, TRACED, "before"))
    after = code(
        network(tmp_path, TRACED.replace("nn.GELU()", "nn.GELU(approximate='tanh')"), "after")
    )
    assert before.split(",")[0] == after.split(",")[0]
    assert first_difference(before, after, STAGES) == "the code of stage 'two'"


@pytest.mark.parametrize("base", [TRACED, UNTRACED], ids=["traced", "untraced"])
def test_comments_formatting_and_the_name_of_the_file_are_not_code(base, tmp_path):
    before = code(network(tmp_path, base, "before"))
    other = '"""A docstring."""\n' + base.replace(
        "def forward(self, x):", 'def forward(self, x):\n        """Compute."""\n\n        # so\n'
    ).replace("self.norm(self.conv(x))", "self.norm(\n            self.conv(x),\n        )")
    assert code(network(tmp_path, other, "elsewhere")) == before


@pytest.mark.parametrize("base", [TRACED, UNTRACED], ids=["traced", "untraced"])
def test_weights_are_not_code(base, tmp_path):
    one, two = (network(tmp_path, base) for _ in range(2))
    with torch.no_grad():
        for parameter in two.parameters():
            parameter.mul_(-3)
    assert code(one) == code(two)


def test_the_rate_of_a_dropout_that_is_off_is_not_code(tmp_path):
    before = code(network(tmp_path, TRACED))
    assert code(network(tmp_path, TRACED.replace("Dropout(0.1)", "Dropout(0.7)"), "x")) == before


SCRIPT = """
import json, sys
from pathlib import Path
from tests.backbones.test_code import code, network
names = sys.argv[2:]
folder = Path(sys.argv[1])
networks = {name: network(folder, (folder / name).read_text(), "here") for name in names}
print(json.dumps({name: code(model) for name, model in networks.items()}))
"""


def test_the_code_is_the_same_in_another_process_in_another_order(tmp_path):
    (tmp_path / "traced").write_text(TRACED)
    (tmp_path / "untraced").write_text(UNTRACED)
    expected = {
        "traced": code(network(tmp_path, TRACED)),
        "untraced": code(network(tmp_path, UNTRACED)),
    }
    for names in (["traced", "untraced"], ["untraced", "traced"]):
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), *names],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(found.stdout) == expected


def test_an_operation_that_moves_to_the_next_stage_is_another_code():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    early = code(model, stages={"a": model[:2], "b": model[2:]})
    late = code(model, stages={"a": model[:1], "b": model[1:]})
    assert not set(early.split(",")) & set(late.split(","))


class _Sized(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.factor = factor

    def forward(self, x):
        return self.conv(x) * self.factor if x.shape[-1] > 32 else self.conv(x)


def test_code_for_larger_images_only_is_code_where_other_sizes_are_taken():
    one, two = _Sized(2).eval(), _Sized(3).eval()
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})
    fixed = {"other_sizes": False}
    assert code(one, stages={"a": one}, **fixed) == code(two, stages={"a": two}, **fixed)


class _Windows(nn.Module):
    """Does not take a batch of none: what -1 stands for is open."""

    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.factor = torch.full((4, 1, 1), float(factor))

    def forward(self, x):
        x = torch.unflatten(self.conv(x), 0, (len(x), -1))
        return x.squeeze(1) * self.factor


def test_a_network_that_takes_no_empty_batch_is_traced_all_the_same():
    one, same, two = (_Windows(factor).eval() for factor in (2, 2, 3))
    assert code(one, stages={"a": one}) == code(same, stages={"a": same})
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})


class _Caching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.cache = {}
        self.last = None

    def forward(self, x):
        if "table" not in self.cache:
            self.cache["table"] = torch.linspace(0, 1, 4).view(4, 1, 1).exp()
        self.last = self.cache["table"]
        return self.conv(x) * self.last


def test_tracing_leaves_no_cache_of_a_forward_pass_behind():
    model = _Caching().eval()
    before = code(model, stages={"a": model})
    assert model.cache == {}
    assert model.last is None
    model(torch.zeros(1, 3, 8, 8))
    with left_as_it_is(model):
        model.cache.clear()
        assert code(model, stages={"a": model}) == before
    assert "table" in model.cache


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        return x * factor


class _Applying(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.factor = factor

    def forward(self, x):
        return _Function.apply(self.conv(x), self.factor)


def test_what_an_autograd_function_computes_is_code():
    one, two = _Applying(2.0).eval(), _Applying(3.0).eval()
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})


class _Autocast(_Applying):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.factor > 2):
            return self.conv(x)


def test_autocast_in_a_forward_is_code():
    one, two = _Autocast(2.0).eval(), _Autocast(3.0).eval()
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})


def test_a_hook_is_code():
    one, two = (nn.Sequential(nn.Conv2d(3, 4, 3)).eval() for _ in range(2))
    two[0].register_forward_hook(lambda module, args, output: output * 2)
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})


def _defined_by_exec(factor):
    names = {"nn": nn}
    exec(  # as a notebook does: there is no file to read
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        f"        return self.conv(x) * {factor} if x.sum() > 0 else self.conv(x)\n",
        names,
    )
    return names["Net"]().eval()


def test_code_without_a_source_is_read_as_it_is_compiled():
    one, same, two = (_defined_by_exec(factor) for factor in (2, 2, 3))
    assert code(one, stages={"a": one}) == code(same, stages={"a": same})
    assert code(one, stages={"a": one}) != code(two, stages={"a": two})


class _Opaque(nn.Conv2d):
    forward = len  # stands for a compiled extension


def test_code_that_can_be_neither_traced_nor_read_is_an_error():
    model = _Opaque(3, 4, 3).eval()
    with pytest.raises(UnreadableCodeError, match="_Opaque is no Python code"):
        code(model, stages={"a": model})


def test_a_version_is_code():
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    codes = [code(model, stages={"a": model}, version=version) for version in (None, 1, 2, "x")]
    assert len(set(codes)) == 4
    assert codes[1].startswith(codes[0])
    difference = first_difference(codes[1], codes[2], ["a"])
    assert difference == "the version= of register_backbone"


def test_forward_passes_of_another_thread_are_not_recorded(tmp_path):
    model = network(tmp_path, TRACED)
    expected = code(model)
    done = threading.Event()

    def compute():
        while not done.is_set():
            torch.relu(torch.zeros(4)) + 1

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        assert {code(model) for _ in range(20)} == {expected}
    finally:
        done.set()
        thread.join()
