import pytest
from torch import nn

from sktransfer import PretrainedFeatureTransformer, register_backbone
from sktransfer.backbones.sources import _registered
from sktransfer.model_selection import _candidates
from sktransfer.model_selection._candidates import candidates_of


def found(backbones, depths=(None, -1), offline=False, **parameters):
    return candidates_of(backbones, depths, offline, parameters)


def test_names_get_the_parameters_and_transformers_keep_their_own(mini_file):
    random = PretrainedFeatureTransformer("mini", weights=None, image_size=48, n_jobs=1)
    named, file, own = found(["mini", mini_file, random], image_size=32, n_jobs=2)
    assert [c.label for c in (named, file, own)] == [
        "mini",
        mini_file,
        "mini, weights=None, image_size=48",
    ]
    assert [c.transformer.image_size for c in (named, file, own)] == [32, 32, 48]
    assert [c.transformer.n_jobs for c in (named, file, own)] == [2, 2, 1]
    assert {c.transformer.depth for c in (named, file, own)} == {(None, -1)}
    assert random.depth is None  # the user's object is not changed


def test_what_is_known_comes_from_the_weights_that_are_asked_for(mini_file):
    old, new, random, file = found(
        [
            PretrainedFeatureTransformer("resnet50", weights="IMAGENET1K_V1"),
            "resnet50",
            PretrainedFeatureTransformer("resnet50", weights=None),
            PretrainedFeatureTransformer("mini", weights=mini_file),
        ]
    )
    assert (old.top1, new.top1) == (76.13, 80.858)
    assert old.n_params == new.n_params == random.n_params == 25_557_032
    assert old.n_bytes > 90_000_000
    assert (random.top1, random.n_bytes, random.licence) == (None, 0, "")
    assert (file.top1, file.n_bytes, file.licence) == (None, 0, "BSD-3-Clause")


def test_the_list_by_default_is_short_and_has_what_was_registered(monkeypatch):
    monkeypatch.setattr(_registered, "registered", {})
    register_backbone(
        "own", nn.Module, {"all": ("0",)}, {"size": 32, "mean": (0, 0, 0), "std": (1, 1, 1)}
    )
    monkeypatch.setattr(_candidates, "_describe", lambda candidate, offline: None)
    labels = [c.label for c in found(None)]
    assert labels[-1] == "own"
    assert 5 <= len(labels) <= 10
    monkeypatch.setattr(_candidates, "list_backbones", lambda offline: ["mini", "here"])
    assert [c.label for c in found(None, offline=True)] == ["mini", "here"]


def test_offline_leaves_out_what_would_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    random = PretrainedFeatureTransformer("resnet18", weights=None)
    far, here, drawn = found(["resnet18", "mini", random], offline=True)
    assert far.reason == "its weights are not on this machine, and offline=True"
    assert here.reason is drawn.reason is None
    assert found(["resnet18"])[0].reason is None


def test_a_file_that_is_not_there_is_a_reason_and_a_name_that_is_not_an_error(tmp_path):
    missing, _ = found([tmp_path / "gone.safetensors", "mini"])
    assert "no such file of weights" in missing.reason
    with pytest.raises(ValueError, match="backbones: backbone='resnet81' is unknown"):
        found(["mini", "resnet81"])


@pytest.mark.parametrize(
    ("backbones", "error", "message"),
    [
        ("resnet18", TypeError, "backbones must be a list of backbones, got 'resnet18'"),
        ([], ValueError, "backbones must not be empty"),
        (["mini", 3], TypeError, "backbones must hold names, paths .*, got 3"),
        (["mini", "mini"], ValueError, "backbones holds some more than once: mini"),
    ],
)
def test_what_is_no_list_of_backbones_is_refused(backbones, error, message):
    with pytest.raises(error, match=message):
        found(backbones)
