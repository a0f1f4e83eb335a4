"""The record of a row's ingredients: each of them is in the key, and nothing else."""

from dataclasses import fields, replace

import pytest

from sktransfer.store import _key
from sktransfer.store._key import RowIngredients, common_key, row_key

SOME = RowIngredients(
    weights="0123456789abcdef0123456789abcdef",
    code="aaaa,bbbb",
    stages=("stem", "layer1"),
    n_stages=2,
    layout={"n_prefix_tokens": 0, "class_token": False, "head": "avg"},
    pooling="avg",
    input={
        "size": 224,
        "resize": 256,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "crop": "center",
    },
    view=None,
    image_code={"decoding": 1, "preprocessing": 1},
    arithmetic={"precision": "float32", "device": "cpu", "float32": "ieee ieee highest"},
    libraries={"torch": "2.15", "pillow": "13.0"},
)

OTHERS = {
    "weights": ["0123456789abcdef0123456789abcdee", ""],
    "code": ["aaaa,bbbc", "bbbb,aaaa", ""],
    "stages": [("stem", "layer2"), ("layer1", "stem"), ("stemlayer1",), ()],
    "n_stages": [1, 3],
    "layout": [
        {**SOME.layout, "n_prefix_tokens": 1},
        {**SOME.layout, "class_token": True},
        {**SOME.layout, "head": "cls"},
    ],
    "pooling": ["max", "flatten", None],
    "input": [
        {**SOME.input, "size": 225},
        {**SOME.input, "resize": 224},
        {**SOME.input, "mean": (0.456, 0.485, 0.406)},
        {**SOME.input, "mean": (0.48500000000000004, 0.456, 0.406)},
        {**SOME.input, "std": (0.229, 0.224, 0.226)},
        {**SOME.input, "interpolation": "bicubic"},
        {**SOME.input, "crop": "squash"},
    ],
    "view": ["light:2|0|0", "light:2|0|1", ""],
    "image_code": [
        {"decoding": 2, "preprocessing": 1},
        {"decoding": 1, "preprocessing": 2},
    ],
    "arithmetic": [
        {**SOME.arithmetic, "precision": "bfloat16"},
        {**SOME.arithmetic, "device": "cuda"},
        {**SOME.arithmetic, "float32": "tf32 ieee highest"},
    ],
    "libraries": [
        {"torch": "2.16", "pillow": "13.0"},
        {"torch": "2.15", "pillow": "13.1"},
        {"torch": "2.15", "pillow": "13.0", "another": "1"},
    ],
}


def test_the_mutations_name_every_ingredient():
    assert OTHERS.keys() == {field.name for field in fields(RowIngredients)}


def test_each_ingredient_changed_alone_gives_another_key():
    keys = [common_key(SOME)]
    for name, values in OTHERS.items():
        keys += [common_key(replace(SOME, **{name: value})) for value in values]
    assert len(set(keys)) == len(keys) == 1 + sum(map(len, OTHERS.values()))


def test_another_format_gives_other_keys(monkeypatch):
    before = common_key(SOME)
    monkeypatch.setattr(_key, "FORMAT", _key.FORMAT + 1)
    assert common_key(SOME) != before


def test_the_order_of_a_mapping_and_the_kind_of_a_sequence_change_no_key():
    turned = {
        name: dict(reversed(value.items()))
        for name in ("layout", "input", "image_code", "arithmetic", "libraries")
        for value in [getattr(SOME, name)]
    }
    turned["input"]["mean"] = list(turned["input"]["mean"])
    assert common_key(replace(SOME, **turned, stages=list(SOME.stages))) == common_key(SOME)


def test_values_of_two_types_that_read_alike_have_two_keys():
    keys = {common_key(replace(SOME, layout={"n": value})) for value in (1, 1.0, True, "1", b"1")}
    assert len(keys) == 5


VIEW = "light:2 torchvision 0.29.2 torch 2.15.0|3|0"
NO_NETWORK = {"weights": "", "code": "", "stages": (), "n_stages": 0, "layout": {}}


# A change here makes every stored row be computed again: raise FORMAT with it.
@pytest.mark.parametrize(
    ("ingredients", "key"),
    [
        (SOME, "09287c55d3221b5a438b9600444db7dc"),
        (replace(SOME, pooling=None, n_stages=1), "79a71da72ea99c9d311219995d745491"),
        (
            replace(SOME, view=VIEW),
            "c20a629afb0086b192f75bd6526f7e55",
        ),
        (
            replace(SOME, **NO_NETWORK),
            "1231c093410e4ac9d7b3a371799d13c6",
        ),
    ],
    ids=["a row", "an activation", "a view", "pixels"],
)
def test_the_keys_of_a_few_rows_are_pinned(ingredients, key):
    assert common_key(ingredients).hex() == key


def test_a_row_s_key_ends_with_the_digest_of_its_image():
    digest = bytes(range(16))
    assert row_key(common_key(SOME), digest) == common_key(SOME) + digest


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, range(3)])
def test_what_is_no_plain_value_is_refused(value):
    with pytest.raises(TypeError, match="a key is made of plain values, got"):
        common_key(replace(SOME, view=value))
