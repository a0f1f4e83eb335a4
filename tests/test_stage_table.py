import pickle
from html.parser import HTMLParser

import pytest
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, backbone_info
from sktransfer._stage_table import StageRow, StageTable, stage_table
from sktransfer.backbones._registry import load_backbone


@pytest.fixture
def fitted(shapes):
    return PretrainedFeatureTransformer("mini", image_size=32, depth=-1).fit(shapes[0])


class Cells(HTMLParser):
    """Collects the text of the cells of the stage table, and all tags."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self._inside, self._cell = [], set(), False, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self._inside |= ("class", "sktransfer-stages") in attributes
        if self._inside and tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")

    def handle_endtag(self, tag):
        self._inside &= tag != "table"
        self._cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside and self._cell:
            self.rows[-1].append(data)


def test_parameters_are_counted_by_stage_and_role():
    backbone = load_backbone("mini")
    stages = stage_table(backbone, 2, head=nn.Linear(256, 3))
    names = list(backbone.stages)
    assert [row.name for row in stages] == [*names, "(head)"]
    assert [row.role for row in stages] == ["frozen"] * 2 + ["trained"] * (len(names) - 1)
    assert stages[-1].n_params == 256 * 3 + 3
    in_backbone = sum(parameter.numel() for parameter in backbone.model.parameters())
    assert stages.total() == in_backbone + stages[-1].n_params
    assert stages.total("frozen") + stages.total("trained") == stages.total()


def test_parameters_that_stages_share_are_counted_once():
    class Backbone:
        stages = {"a": nn.Linear(2, 2), "b": nn.Linear(3, 3)}
        pre_logits = None
        known_widths = {}

    Backbone.stages["b"].weight = Backbone.stages["a"].weight
    assert [row.n_params for row in stage_table(Backbone, 1)] == [6, 3]


def test_layers_after_the_pooling_are_a_row_of_their_own():
    backbone = load_backbone("mobilenet_v3_small", None, None)
    in_backbone = sum(parameter.numel() for parameter in backbone.model.parameters())

    def role(*args, **kwargs):
        stages = stage_table(backbone, *args, **kwargs)
        assert stages.total() == in_backbone
        assert stages[-1].name == "(pre-logits)"
        return stages[-1].role

    n_stages = len(backbone.stages)
    assert role(n_stages) == role(n_stages, pooling="head") == "frozen"
    assert role(n_stages, pooling="avg") == "unused"
    assert role(n_stages - 1) == "trained"
    assert role(n_stages - 1, rest="unused", pooling="head") == "unused"


def test_widths_are_those_of_the_description(shapes):
    X, y = shapes
    described = {stage.name: stage.width for stage in backbone_info("mini").stages}
    tuned = FineTunedClassifier("mini", image_size=32, freeze_depth=-1, max_epochs=1).fit(X, y)
    assert {row.name: row.width for row in tuned.stages_} == {**described, "(head)": 2}


def test_the_width_of_the_layers_after_the_pooling_is_that_of_a_row():
    backbone = load_backbone("mobilenet_v3_small", None, None)
    n_stages = len(backbone.stages)
    assert backbone.width(n_stages, "head", backbone.spec.input.at(32)) == 1024
    assert stage_table(backbone, n_stages, pooling="head")[-1].width == 1024


def test_unused_stages_have_no_width_whoever_has_computed_them(fitted, shapes):
    load_backbone("mini").width(5, "avg", load_backbone("mini").spec.input)
    assert [row.width for row in fitted.fit(shapes[0]).stages_] == [32, 32, 64, 128, None]


def test_a_head_of_ones_own_may_have_no_linear_layer():
    assert stage_table(load_backbone("mini"), 5, head=nn.Identity())[-1].width is None


def test_it_prints_as_a_table_with_totals():
    stages = StageTable(
        [StageRow("stem", "frozen", 12_300, 64), StageRow("block", "trained", 456_000)]
    )
    assert repr(stages).splitlines() == [
        "stage  role     width  parameters",
        "stem   frozen      64      12.3 k",
        "block  trained      -       456 k",
        "468 k parameters: 12.3 k frozen, 456 k trained",
    ]


def test_it_pickles_as_it_is(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert again.stages_ == fitted.stages_
    assert repr(again.stages_) == repr(fitted.stages_)


def test_a_notebook_shows_each_stage():
    stages = StageTable([StageRow("stem", "frozen", 12_300, 64), StageRow("last", "unused", 5)])
    assert Cells(stages._repr_html_()).rows == [
        ["stage", "role", "width", "parameters"],
        ["stem", "frozen", "64", "12.3 k"],
        ["last", "unused", "-", "5"],
    ]


def test_names_of_stages_are_escaped():
    hostile = "</td><script>alert(1)</script>&"
    page = Cells(StageTable([StageRow(hostile, "frozen", 1)])._repr_html_())
    assert "script" not in page.tags
    assert page.rows[1][0] == hostile


def test_a_fit_that_fails_leaves_no_table(fitted, shapes):
    fitted.set_params(depth=99)
    with pytest.raises(ValueError, match="out of range"):
        fitted.fit(shapes[0])
    assert not hasattr(fitted, "stages_")
