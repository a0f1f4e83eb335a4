"""The model card says what is known, and that the rest is not."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureTransformer
from sktransfer.hygiene import label_issues, leakage_report
from sktransfer.inspection import model_card

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def classifier(shapes):
    return FineTunedClassifier("mini", freeze_depth=None, random_state=0).fit(*shapes)


def test_the_card_names_the_network_what_was_trained_and_the_images(classifier, shapes):
    _, labels = shapes
    text = model_card(classifier, labels, data="Drawn.", intended_use="Tests.")
    spec = classifier.backbone_spec_
    for known in (spec.digest, spec.licence, "none; the head alone", "Drawn.", "Tests."):
        assert known in text
    for label in np.unique(labels):
        assert f"| {label} | {np.sum(labels == label)} |" in text


def test_the_head_is_what_the_hub_reads(classifier):
    scores = {"test_accuracy": [0.5, 1.0], "test_loss": [np.nan, 0.1], "fit_time": [1, 2]}
    card = hub.ModelCard(model_card(classifier, scores=scores, title='a "name": x'))
    data = card.data.to_dict()
    assert data["library_name"] == "sktransfer"
    assert data["pipeline_tag"] == "image-classification"
    (result,) = [r for r in card.data.eval_results if r.metric_type == "accuracy"]
    assert result.metric_value == 0.75
    assert card.data.model_name == 'a "name": x'


def test_what_is_not_given_is_said_to_be_unknown(classifier):
    text = model_card(classifier)
    assert text.count("\nUnknown.\n") == 4  # use, images, duplicates, labels
    assert "Unknown: the card was written without scores." in text
    assert "model-index" not in text


def test_reports_are_told_in_their_own_words(classifier, shapes):
    paths, labels = shapes
    leakage = leakage_report(paths, labels, cv=2)
    issues = label_issues(paths, labels, cv=2, backbone="mini")
    text = model_card(classifier, leakage=leakage, labels=issues)
    assert str(leakage).splitlines()[0] in text
    assert f"{len(paths)} images: {len(issues)} labels are likely wrong" in text


def test_scores_are_shown_by_fold_with_mean_and_deviation(classifier):
    text = model_card(classifier, scores={"test_score": np.array([0.5, 0.7])})
    assert "| score | 0.6000 | 0.1414 | 0.5000, 0.7000 |" in text


def test_networks_are_found_in_searches_pipelines_and_column_transformers(shapes):
    pandas = pytest.importorskip("pandas")
    paths, labels = shapes
    table = pandas.DataFrame({"photo": paths, "again": paths})
    columns = ColumnTransformer(
        [
            ("early", PretrainedFeatureTransformer("mini", depth=1), ["photo"]),
            ("late", PretrainedFeatureTransformer("mini"), ["again"]),
        ]
    )
    search = GridSearchCV(
        make_pipeline(columns, LogisticRegression()), {"logisticregression__C": [1.0]}, cv=2
    ).fit(table, labels)
    text = model_card(search, labels)
    assert text.count("| backbone | mini |") == 2
    assert text.index("# LogisticRegression") > 0


def test_a_regressor_has_the_quartiles_of_its_targets(shapes):
    paths, _ = shapes
    numbers = np.arange(len(paths), dtype=float)
    regressor = FineTunedRegressor("mini", freeze_depth=None).fit(paths, numbers)
    text = model_card(regressor, numbers)
    assert f"| largest | {len(paths) - 1} |" in text
    assert "pipeline_tag" not in text


def test_no_folder_of_the_machine_is_told(shapes, tmp_path):
    paths, labels = shapes
    file = tmp_path / "tuned.safetensors"
    FineTunedClassifier("mini", freeze_depth=None).fit(paths, labels).save_backbone(file)
    cache = str(tmp_path / "rows")
    fitted = FineTunedClassifier(str(file), freeze_depth=None, feature_cache=cache)
    text = model_card(fitted.fit(paths, labels))
    assert "| backbone | tuned.safetensors |" in text
    assert "feature_cache='rows'" in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/home/me/model.safetensors", "model.safetensors"),
        ("openclip:local-dir:/home/me/model", "openclip:local-dir:model"),
        ("timm:local-dir:C:\\Users\\me\\model", "timm:local-dir:model"),
        ("openclip:hf-hub:someone/model", "openclip:hf-hub:someone/model"),
    ],
)
def test_a_path_behind_the_name_of_a_source_is_a_path_too(classifier, given, told):
    spec = replace(classifier.backbone_spec_, name=given, architecture=given, source=given)
    other = copy(classifier)
    other.__dict__.update(backbone=given, backbone_spec_=spec)
    text = model_card(other)
    assert f"| backbone | {told} |" in text
    assert f"| architecture | {told} |" in text
    assert f"FineTunedClassifier(backbone='{told}'" in text
    assert told == given or given not in text


def test_a_path_with_an_apostrophe_is_a_path_too(classifier):
    other = copy(classifier)
    other.feature_cache = "/home/o'brien/rows"
    assert "feature_cache='rows'" in model_card(other)


def test_names_of_classes_cannot_break_the_tables(shapes):
    paths, labels = shapes
    hostile = np.where(labels == labels[0], "a|b\n# c", "<script>")
    fitted = FineTunedClassifier("mini", freeze_depth=None).fit(paths, hostile)
    text = model_card(fitted, hostile)
    assert "| a\\|b # c |" in text
    assert "<script>" not in text.split("```")[0] + text.split("```")[2]


def test_errors_say_what_is_needed(classifier, shapes):
    with pytest.raises(NotFittedError):
        model_card(FineTunedClassifier("mini"))
    rows = np.random.default_rng(0).normal(size=(10, 3))
    with pytest.raises(ValueError, match=r"estimator must have an estimator of sktransfer"):
        model_card(LogisticRegression().fit(rows, np.arange(10) % 2))
    with pytest.raises(ValueError, match=r"scores must have a key.*'accuracy'"):
        model_card(classifier, scores={"accuracy": [1.0]})
