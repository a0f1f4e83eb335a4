import pickle
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.backbones._registry import load_backbone
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning
from sktransfer.runtime import _display
from sktransfer.training._probe import mean_and_scale

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 4,
    "batch_size": 8,
    "random_state": 0,
}
DEPTHS = [None, -1, -2, 2, 0]


def trained_state(classifier):
    return {name: value.cpu() for name, value in classifier.net_.module_.state_dict().items()}


def test_string_labels_go_in_and_come_out(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**{**FAST, "max_epochs": 20}).fit(X, y)
    predicted = fitted.predict(X)
    assert predicted.dtype == y.dtype
    assert fitted.classes_.tolist() == ["disc", "square"]
    assert np.mean(predicted == y) >= 0.9


@pytest.mark.parametrize("freeze_depth", DEPTHS)
def test_frozen_parameters_and_buffers_are_bit_identical_after_fit(shapes, freeze_depth):
    X, y = shapes
    pristine = load_backbone("mini")
    before = {name: value.clone() for name, value in pristine.model.state_dict().items()}
    fitted = FineTunedClassifier(**FAST, freeze_depth=freeze_depth).fit(X, y)

    # neither the network that others share nor the stages that this one keeps
    for network in (load_backbone("mini"), fitted._backbone):
        frozen = network.frozen(fitted.freeze_depth_, None).state_dict()
        expected = pristine.frozen(fitted.freeze_depth_, None).state_dict()
        assert frozen.keys() == expected.keys()
        assert all(value.equal(expected[name]) for name, value in frozen.items())
    after = load_backbone("mini").model.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())


@pytest.mark.parametrize("freeze_depth", [-1, -2, 0])
def test_trained_stages_change_but_not_their_batch_norm_statistics(shapes, freeze_depth):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=freeze_depth).fit(X, y)
    before = load_backbone("mini").rest(fitted.freeze_depth_, "avg").state_dict()
    after = fitted.net_.module_.stages.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not value.equal(after[name])}
    assert changed
    for name in before:
        is_statistic = "running_" in name or "num_batches" in name
        is_constant = name.endswith((".scale", ".shift"))
        assert (name in changed) == (not is_statistic and not is_constant), name


@pytest.mark.parametrize("freeze_depth", DEPTHS)
def test_the_optimizer_holds_what_trains_and_nothing_frozen(shapes, freeze_depth):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=freeze_depth).fit(X, y)
    held = {id(p) for group in fitted.net_.optimizer_.param_groups for p in group["params"]}
    assert held == {id(p) for p in fitted.net_.module_.parameters()}
    frozen = fitted._backbone.frozen(fitted.freeze_depth_, None)
    assert not held & {id(p) for p in frozen.parameters()}
    assert not any(p.requires_grad for p in frozen.parameters())


def test_each_image_passes_the_frozen_stages_once_in_a_grid_search_and_its_refit(shapes, cache):
    X, y = shapes
    grid = {"lr": [1e-3, 1e-2]}
    for freeze_depth in (None, -1):
        classifier = FineTunedClassifier(**FAST, freeze_depth=freeze_depth, feature_cache=cache)
        with count_forward_passes() as counter:
            search = GridSearchCV(classifier, grid, cv=3).fit(X, y)
            search.predict(X)
        assert counter.computed == len(X)


def test_both_estimators_share_the_rows_of_a_frozen_network(shapes, cache):
    X, y = shapes
    PretrainedFeatureTransformer("mini", image_size=32, feature_cache=cache).fit_transform(X)
    with count_forward_passes() as counter:
        FineTunedClassifier(**FAST, freeze_depth=None, feature_cache=cache).fit(X, y)
    assert counter.computed == 0


def test_a_head_alone_predicts_what_a_logistic_regression_on_standardised_rows_does(shapes):
    X, y = shapes
    reading = {"backbone": "mini", "image_size": 32, "device": "cpu"}
    head_alone = FineTunedClassifier(freeze_depth=None, random_state=0, **reading)
    fitted = head_alone.fit(X[:16], y[:16])
    rows = PretrainedFeatureTransformer(**reading).fit_transform(X)
    mean, scale = mean_and_scale(rows[:16], np.ones(16))
    rows = (rows - mean) / scale
    expected = LogisticRegression(C=0.03).fit(rows[:16], y[:16]).predict_proba(rows)
    np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=0.01)
    assert fitted.net_.module_.penalty is None


def test_with_nothing_frozen_no_image_passes_a_frozen_network(shapes, cache):
    X, y = shapes
    with count_forward_passes() as counter:
        FineTunedClassifier(**FAST, freeze_depth=0, feature_cache=cache).fit(X, y)
    assert counter.computed == 0


@pytest.mark.parametrize("freeze_depth", [None, -1, 0])
def test_the_same_seed_gives_the_same_weights_with_and_without_a_store(shapes, cache, freeze_depth):
    X, y = shapes
    exact = {**FAST, "precision": "float32", "freeze_depth": freeze_depth}
    states = [
        trained_state(FineTunedClassifier(**exact, feature_cache=where).fit(X, y))
        for where in (None, cache, cache)
    ]
    for state in states[1:]:
        for name, value in states[0].items():
            torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-6)


def test_another_seed_gives_other_weights(shapes):
    X, y = shapes
    one, other = (
        FineTunedClassifier(**{**FAST, "random_state": seed}).fit(X, y) for seed in (0, 1)
    )
    states = [trained_state(fitted)["head.1.1.weight"] for fitted in (one, other)]
    assert not states[0].equal(states[1])


def test_probabilities_are_those_of_the_classes_in_order(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST).fit(X, y)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (len(X), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(fitted.predict(X), fitted.classes_[probabilities.argmax(1)])


@pytest.mark.parametrize(
    "head", ["linear", (8,), (16, 8), lambda n_in, n_out: torch.nn.Linear(n_in, n_out)]
)
def test_heads_are_what_the_parameter_says(shapes, head):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, head=head).fit(X, y)
    linears = [m for m in fitted.net_.module_.head.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linears) == (len(head) + 1 if isinstance(head, tuple) else 1)
    assert fitted.predict_proba(X).shape == (len(X), 2)


def test_epochs_are_trained_and_recorded(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**{**FAST, "max_epochs": 3}).fit(X, y)
    assert fitted.n_iter_ == 3
    losses = [record["train_loss"] for record in fitted.history_]
    assert losses[-1] < losses[0]


def test_the_trained_stages_learn_slower_than_the_head(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, lr=0.01, backbone_lr_scale=0.25).fit(X, y)
    rates = {
        name: group["initial_lr"]
        for group in fitted.net_.optimizer_.param_groups
        for name, parameter in fitted.net_.module_.named_parameters()
        if any(parameter is held for held in group["params"])
    }
    assert {rate for name, rate in rates.items() if name.startswith("head")} == {0.01}
    assert {rate for name, rate in rates.items() if name.startswith("stages")} == {0.0025}


def test_a_pickle_is_self_contained(shapes, tmp_path, mini_file):
    from sktransfer.backbones._weights import read_metadata, read_tensors, write_backbone_file

    X, y = shapes
    path = tmp_path / "own.safetensors"
    write_backbone_file(path, read_tensors(mini_file), read_metadata(mini_file))
    fitted = FineTunedClassifier(**{**FAST, "backbone": path, "feature_cache": None}).fit(X, y)
    expected = fitted.predict_proba(X)
    pickled = pickle.dumps(fitted)
    path.unlink()
    np.testing.assert_allclose(pickle.loads(pickled).predict_proba(X), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"freeze_depth": 9}, r"freeze_depth=9 is out of range.*stem"),
        ({"freeze_depth": 1.5}, r"'freeze_depth' parameter.*Got 1.5"),
        ({"head": "mlp"}, r"'head' parameter.*Got 'mlp'"),
        ({"head": (8, 0)}, r"head must be.*got \(8, 0\)"),
        ({"head": lambda n_in, n_out: None}, r"head=.*must return an nn.Module"),
        ({"head": lambda n_in, n_out: torch.nn.Linear(n_in, 7)}, r"must map them to \(2, 2\)"),
        ({"on_error": "nan"}, r"'on_error' parameter.*Got 'nan'"),
        ({"lr": 0}, r"'lr' parameter.*Got 0"),
        ({"backbone_lr_scale": -1}, r"'backbone_lr_scale' parameter.*Got -1"),
        ({"weight_decay": -1}, r"'weight_decay' parameter.*Got -1"),
        ({"max_epochs": 0}, r"'max_epochs' parameter.*Got 0"),
        ({"batch_size": 0}, r"'batch_size' parameter.*Got 0"),
        ({"random_state": "a"}, r"'random_state' parameter.*Got 'a'"),
    ],
)
def test_a_wrong_parameter_names_itself_its_value_and_what_is_allowed(shapes, wrong, message):
    X, y = shapes
    with pytest.raises((TypeError, ValueError), match=message):
        FineTunedClassifier(**{**FAST, **wrong}).fit(X, y)


@pytest.mark.parametrize(
    ("n_images", "labels", "message"),
    [
        (4, ["a", "b", "a"], r"inconsistent numbers of samples.*4, 3"),
        (0, [], "X holds no images"),
        (3, ["a", "a", "a"], r"y has one class only, 'a'; .*at least 2"),
        (3, None, "requires y to be passed"),
        (3, [0.5, 1.5, 2.5], "continuous|Unknown label type"),
    ],
)
def test_labels_that_do_not_fit_are_a_clear_error(shapes, n_images, labels, message):
    X, _ = shapes
    with pytest.raises(ValueError, match=message):
        FineTunedClassifier(**FAST).fit(X[:n_images], labels)


def test_a_bad_image_is_named_at_fit_and_at_predict(shapes, tmp_path):
    X, y = shapes
    missing = str(tmp_path / "missing.png")
    with pytest.raises(ImageReadError, match=r"X\[1\] .*missing.png: no such file"):
        FineTunedClassifier(**FAST).fit([X[0], missing, X[1]], ["a", "b", "b"])
    fitted = FineTunedClassifier(**FAST).fit(X, y)
    with pytest.raises(ImageReadError, match=r"X\[0\] .*missing.png: no such file"):
        fitted.predict([missing])


def test_on_error_skip_fits_on_what_can_be_read_and_says_what_cannot(shapes, tmp_path):
    X, y = shapes
    missing = str(tmp_path / "missing.png")
    dirty_X, dirty_y = np.insert(X, 3, missing), np.insert(y, 3, y[0])
    classifier = FineTunedClassifier(**FAST, on_error="skip")
    with pytest.warns(
        UnreadableImageWarning, match=r"left out of fit: 1 of 25.*\n.*X\[3\].*missing"
    ):
        fitted = classifier.fit(dirty_X, dirty_y)
    clean = FineTunedClassifier(**FAST).fit(X, y)
    np.testing.assert_array_equal(fitted.predict_proba(X), clean.predict_proba(X))
    with pytest.raises(ImageReadError, match="missing"):
        fitted.predict([missing])


def test_on_error_skip_never_leaves_a_class_without_images(shapes, tmp_path):
    X, y = shapes
    X, y = [*X[:4], str(tmp_path / "missing.png")], [*y[:4], "cross"]
    with (
        pytest.warns(UnreadableImageWarning),
        pytest.raises(ValueError, match="no image of the classes 'cross' is left"),
    ):
        FineTunedClassifier(**FAST, on_error="skip").fit(X, y)


@pytest.mark.parametrize("freeze_depth", [None, -1, 0])
def test_a_saved_backbone_is_the_tuned_network_for_both_estimators(shapes, tmp_path, freeze_depth):
    X, y = shapes
    exact = {**FAST, "precision": "float32", "lr": 0.01, "freeze_depth": freeze_depth}
    fitted = FineTunedClassifier(**exact).fit(X, y)
    path = tmp_path / "tuned.safetensors"
    pickle.loads(pickle.dumps(fitted)).save_backbone(path)

    transformer = PretrainedFeatureTransformer(path, precision="float32").fit(X)
    rows = torch.from_numpy(transformer.transform(X))
    with torch.inference_mode():
        logits = fitted.net_.module_.head(rows)
    expected = fitted.predict_proba(X)
    np.testing.assert_allclose(torch.softmax(logits, 1), expected, rtol=1e-3, atol=1e-4)
    assert transformer.image_size_ == 32
    assert "fine-tuned" in transformer.backbone_spec_.source
    again = FineTunedClassifier(**{**FAST, "backbone": path, "image_size": None}).fit(X, y)
    assert again.predict(X).shape == y.shape


def test_a_backbone_is_saved_under_a_name_that_can_be_read_again(shapes, tmp_path):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST).fit(X, y)
    with pytest.raises(ValueError, match=r"end in '\.safetensors'.*tuned\.pth"):
        fitted.save_backbone(tmp_path / "tuned.pth")
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        fitted.save_backbone(tmp_path / "nowhere" / "tuned.safetensors")
    with pytest.raises(NotFittedError):
        clone(fitted).save_backbone(tmp_path / "tuned.safetensors")


def test_a_fit_that_is_interrupted_leaves_it_not_fitted(shapes):
    class Interrupting(torch.nn.Linear):
        def forward(self, rows):
            if self.training:
                raise KeyboardInterrupt
            return super().forward(rows)

    X, y = shapes
    classifier = FineTunedClassifier(**FAST).fit(X, y).set_params(head=Interrupting)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(X, y)
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_verbose_shows_progress_or_a_line_for_each_epoch(shapes, capsys):
    X, y = shapes
    FineTunedClassifier(**FAST).fit(X, y)
    assert capsys.readouterr().out == ""
    FineTunedClassifier(**FAST, verbose=1).fit(X, y)
    progress = capsys.readouterr().err
    assert re.search(r"training: 1 of \d+ steps, .* left", progress)
    assert re.search(r"training: \d+ steps in .*, epoch \d", progress)
    FineTunedClassifier(**FAST, verbose=2).fit(X, y)
    table = capsys.readouterr().out
    assert table.count("\n") >= FAST["max_epochs"]
    assert "\x1b" not in table  # colours are for terminals


def test_verbose_of_minus_one_never_shows_anything(shapes, capsys, monkeypatch):
    monkeypatch.setattr(_display, "_SECONDS_BEFORE_PROGRESS", 0.0)
    X, y = shapes
    FineTunedClassifier(**FAST, verbose=-1).fit(X, y).predict(X)
    assert capsys.readouterr() == ("", "")
    FineTunedClassifier(**FAST, verbose=0).fit(X, y)
    assert "training" in capsys.readouterr().err  # that of 0 takes long here
    with pytest.raises(ValueError, match="'verbose' parameter"):
        FineTunedClassifier(**FAST, verbose=-2).fit(X, y)


def test_with_nothing_frozen_a_prediction_does_not_depend_on_its_neighbours(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=0).fit(X, y)
    together = fitted.predict_proba(X)
    alone = np.concatenate([fitted.predict_proba(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(alone, together, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(fitted.predict_proba(X[::-1])[::-1], together, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("label", "text"), [(None, "None"), (np.nan, "NaN"), (None, "NA")])
@pytest.mark.parametrize("kind", [list, np.array])
def test_a_missing_label_is_named_with_its_position(label, text, kind, shapes):
    X, y = shapes
    values = y.astype(object)
    values[5] = pytest.importorskip("pandas").NA if text == "NA" else label
    values = values.tolist() if kind is list else values
    with pytest.raises(ValueError, match=r"y contains NaN, None or NA: 1 of 24 .* position 5"):
        FineTunedClassifier(**FAST).fit(X, values)


def test_missing_labels_of_validation_images_are_named(shapes):
    X, y = shapes
    y_val = [*y[:3], None]
    with pytest.raises(ValueError, match=r"y_val contains NaN, None or NA: 1 of 4 .* position 3"):
        FineTunedClassifier(**FAST, early_stopping=True).fit(X, y, X_val=X[:4], y_val=y_val)


def test_labels_of_several_types_are_refused_with_an_example_of_each(shapes):
    X, y = shapes
    with pytest.raises(ValueError, match=r"y mixes text and other values, such as 'disc' and 1 "):
        FineTunedClassifier(**FAST).fit(X, [1, *y[1:]])


def test_rows_of_a_transformer_are_sent_to_a_scikit_learn_model(shapes):
    rows = np.zeros((24, 256), dtype=np.float32)
    with pytest.raises(ValueError, match="give it to a scikit-learn model such as LogisticRegr"):
        FineTunedClassifier(**FAST).fit(rows, shapes[1])


def test_the_name_of_a_stage_as_depth_is_answered_with_its_number(shapes):
    with pytest.raises(TypeError, match=r"stem, stage1, .*\. freeze_depth=3 is up to 'stage2'"):
        FineTunedClassifier("mini", freeze_depth="stage2").fit(*shapes)
    with pytest.raises(
        TypeError, match=r"freeze_depth must be an int, None or 'auto', got 'half'; an int is a n"
    ):
        FineTunedClassifier("mini", freeze_depth="half").fit(*shapes)
