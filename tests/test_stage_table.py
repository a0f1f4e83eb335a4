import pickle
from html.parser import HTMLParser

import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureTransformer
from sktransfer._stage_table import StageRow, StageTable, stage_table
from sktransfer.backbones import _registry
from sktransfer.backbones._registry import load_backbone


@pytest.fixture
def fitted(shapes):
    return PretrainedFeatureTransformer("mini", image_size=32, depth=-1).fit(shapes[0])


class Cells(HTMLParser):
    """Collects the text of the cells of the stage table, and the tags of the page."""

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


def test_it_prints_as_a_table_with_totals():
    stages = StageTable([StageRow("stem", "frozen", 12_300), StageRow("block", "trained", 456_000)])
    assert repr(stages).splitlines() == [
        "stage  role     parameters",
        "stem   frozen       12.3 k",
        "block  trained       456 k",
        "468 k parameters: 12.3 k frozen, 456 k trained",
    ]


def test_it_pickles_as_it_is(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert again.stages_ == fitted.stages_
    assert repr(again.stages_) == repr(fitted.stages_)


def test_names_of_stages_are_escaped():
    hostile = "</td><script>alert(1)</script>&"
    page = Cells(StageTable([StageRow(hostile, "frozen", 1)])._repr_html_())
    assert "script" not in page.tags
    assert page.rows[1][0] == hostile


@pytest.mark.parametrize("of", ["_repr_html_", "_repr_mimebundle_"])
def test_a_notebook_shows_scikit_learns_diagram_and_each_stage(fitted, of):
    page = getattr(fitted, of)()
    page = page if isinstance(page, str) else page["text/html"]
    assert "sk-top-container" in page
    assert page.count("sktransfer-stages") == StageTable()._repr_html_().count("sktransfer-stages")
    rows = Cells(page).rows
    assert rows[0] == ["stage", "role", "parameters"]
    assert [row[:2] for row in rows[1:]] == [[row.name, row.role] for row in fitted.stages_]
    assert rows[-1][1] == "unused"
    assert fitted.stages_.summary() in page


@pytest.mark.parametrize("estimator", [FineTunedClassifier, FineTunedRegressor])
def test_a_fine_tuned_estimator_shows_its_trained_stages_and_head(shapes, estimator):
    X, y = shapes
    fitted = estimator("mini", image_size=32, freeze_depth=-1, max_epochs=1)
    fitted.fit(X, y if estimator is FineTunedClassifier else (y == "disc").astype(float))
    assert [row.role for row in fitted.stages_] == ["frozen"] * 4 + ["trained"] * 2
    parts = (fitted.net_.module_.stages, fitted.net_.module_.head)  # and not the linear probe
    in_net = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert fitted.stages_.total("trained") == in_net
    assert Cells(fitted._repr_html_()).rows[-1][:2] == ["(head)", "trained"]


def test_before_fit_there_is_the_diagram_alone():
    page = PretrainedFeatureTransformer("mini")._repr_html_()
    assert "sk-top-container" in page
    assert "sktransfer-stages" not in page


def test_as_text_there_is_no_page(fitted):
    with config_context(display="text"):
        assert not hasattr(fitted, "_repr_html_")
        assert set(fitted._repr_mimebundle_()) == {"text/plain"}


def test_a_pipeline_and_a_search_show_the_totals_in_the_box(shapes):
    X, y = shapes
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", image_size=32), LogisticRegression()
    )
    before = pipeline._repr_html_()
    assert "PretrainedFeatureTransformer" in before
    assert "parameters:" not in before
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1]}, cv=2)
    pipeline.fit(X, y)
    search.fit(X, y)
    for fitted in (pipeline, search):
        page = fitted._repr_html_()
        assert page.count("sk-top-container") == before.count("sk-top-container")
        assert pipeline[0].stages_.summary() in page


def test_showing_loads_no_backbone(fitted, monkeypatch):
    fitted = pickle.loads(pickle.dumps(fitted))

    def fail(*args, **kwargs):
        raise AssertionError("a representation must not load")

    monkeypatch.setattr(_registry, "_load", fail)
    monkeypatch.setattr(_registry, "_kept", {})
    assert "unused" in fitted._repr_html_()
    assert "unused" in repr(fitted.stages_)


def test_a_fit_that_fails_leaves_no_table(fitted, shapes):
    fitted.set_params(depth=99)
    with pytest.raises(ValueError, match="out of range"):
        fitted.fit(shapes[0])
    assert not hasattr(fitted, "stages_")
    assert "sktransfer-stages" not in fitted._repr_html_()
