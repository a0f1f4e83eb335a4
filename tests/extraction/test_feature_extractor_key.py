from dataclasses import dataclass

import pytest
import torch
from torch import nn

from sktransfer._spec import BackboneSpec, InputSpec
from sktransfer.extraction import _feature_extractor
from sktransfer.extraction._feature_extractor import ExtractionPlan

INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))


@dataclass(frozen=True)
class Named:
    name: str | None

    def key(self):
        return self.name


def frozen_part(**changes):
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    fields = {
        "module": nn.Identity(),
        "spec": spec,
        "input": INPUT,
        "n_stages": 1,
        "pooling": "avg",
        "precision": "float32",
        "device": torch.device("cpu"),
    }
    return ExtractionPlan(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"n_stages": 2},
        {"pooling": "max"},
        {"precision": "bfloat16"},
        {"input": INPUT.at(16)},
        {"spec": BackboneSpec("name", "mean", (), None, "other", INPUT, ("one",), "", "")},
        {"view": Named("a view")},
        {"view": Named(None)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_everything_that_changes_a_row_changes_its_key(changes):
    assert frozen_part(**changes).common_key() != frozen_part().common_key()


def test_another_view_has_another_key():
    keys = [frozen_part(view=Named(name)).common_key() for name in ("one", "two", "two")]
    assert keys[0] != keys[1] == keys[2]


def test_another_version_of_the_engine_has_other_keys(monkeypatch):
    before = frozen_part().common_key()
    monkeypatch.setattr(_feature_extractor, "FORMAT_VERSION", _feature_extractor.FORMAT_VERSION + 1)
    assert frozen_part().common_key() != before


def test_a_name_and_a_device_change_no_key():
    renamed = BackboneSpec("other", "mean", (), "x", "digest", INPUT, ("one",), "there", "")
    same = frozen_part(spec=renamed, device=torch.device("meta"))
    assert same.common_key() == frozen_part().common_key()


def test_without_stages_backbones_share_their_pixels():
    other = BackboneSpec("name", "mean", (), None, "other", INPUT, ("one",), "", "")
    parts = [frozen_part(n_stages=0), frozen_part(n_stages=0, spec=other)]
    assert parts[0].common_key() == parts[1].common_key()


def test_only_what_has_a_name_can_be_kept():
    views = [None, Named("a view"), Named(None)]
    assert [frozen_part(view=view).is_storable for view in views] == [True, True, False]
