"""scikit-learn's callbacks see the steps of our fits."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    PretrainedFeatureTransformer,
)

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.9 has callbacks")

FAST = {"backbone": "mini", "recipe": "fast", "image_size": 32, "max_epochs": 3}


class Recorder:
    """Notes the tasks that end, by name; asks to stop in an epoch."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.ended = []
        self.largest = {}
        self.n_begun = 0

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        self.n_begun += 1
        self.largest[context.task_name] = context.max_subtasks

    def on_fit_task_end(self, estimator, context):
        parent = context.parent
        name = context.task_name
        if name == "step":
            name = f"step of {parent.task_name}"
            is_last = self.stop_after is not None and context.task_id + 1 >= self.stop_after
            self.ended.append(name)
            return is_last and parent.task_name == "training"
        self.ended.append(name)


def fit(estimator, X, y, **params):
    """Return the recorder of a fit without warnings."""
    recorder = Recorder()
    estimator.set_callbacks(recorder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator.fit(X, y, **params)
    assert recorder.n_begun == len(recorder.ended)
    return recorder


def test_an_epoch_is_a_step_and_so_is_an_image_of_few(shapes, cache):
    X, y = shapes
    recorder = fit(FineTunedClassifier(**FAST, feature_cache=cache), X, y)
    assert recorder.ended.count("step of extraction") == recorder.largest["extraction"] == 24
    assert recorder.ended.count("step of training") == recorder.largest["training"] == 3
    assert recorder.ended[-2:] == ["training", "fit"]
    again = fit(FineTunedClassifier(**FAST, feature_cache=cache), X, y)  # all are cache hits
    assert again.ended == recorder.ended


def test_copies_and_unreadable_images_are_steps_too(shapes, tmp_path):
    X, _ = shapes
    (tmp_path / "broken.png").write_bytes(b"no image")
    X = np.array([*X, *X, str(tmp_path / "broken.png")], dtype=object)
    transformer = PretrainedFeatureTransformer("mini", on_error="nan", feature_cache=None)
    recorder = Recorder()
    transformer.set_callbacks(recorder)
    with pytest.warns(UserWarning, match="rows of NaN"):
        rows = transformer.fit_transform(X)
    assert recorder.ended.count("step of extraction") == len(rows) == 49


def test_many_images_are_a_hundred_steps():
    X = np.random.default_rng(0).integers(0, 255, (250, 32, 32), dtype=np.uint8)
    recorder = Recorder()
    transformer = PretrainedFeatureTransformer("mini", depth=0, feature_cache=None)
    transformer.set_callbacks(recorder).fit_transform(X)
    assert recorder.ended == [*["step of extraction"] * 100, "extraction", "fit"]


def test_validation_images_are_an_extraction_of_their_own(shapes):
    X, y = shapes
    for params in ({}, {"X_val": X[:6], "y_val": y[:6]}):
        classifier = FineTunedClassifier(**FAST, early_stopping=True, validation_fraction=0.25)
        recorder = fit(classifier, X, y, **params)
        assert recorder.ended.count("extraction") == 2


@pytest.mark.parametrize(
    "estimator",
    [
        FineTunedClassifier(**FAST),
        FineTunedRegressor(**FAST),
        FineTunedTransformer(FineTunedClassifier(**FAST), cv=2),
        PretrainedFeatureTransformer("mini"),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_callbacks_of_a_pipeline_in_a_search_reach_each_estimator(estimator, shapes):
    X, y = shapes
    pipeline = clone(estimator)
    if hasattr(estimator, "transform"):
        pipeline = make_pipeline(pipeline, LogisticRegression())
    if isinstance(estimator, FineTunedRegressor):
        y = np.arange(len(y), dtype=float)
    recorder = fit(GridSearchCV(pipeline, {}, cv=2), X, y)
    # 2 folds and the refit; a transformer has a network of all images and one of each fold
    n_trainings = {"FineTunedTransformer": 9, "PretrainedFeatureTransformer": 0}.get(
        type(estimator).__name__, 3
    )
    assert recorder.ended.count("step of training") == 3 * n_trainings
    assert recorder.ended.count("extraction") == (n_trainings or 3)


def test_a_callback_stops_training(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**FAST).set_callbacks(Recorder(stop_after=2))
    assert classifier.fit(X, y).n_iter_ == 2
    assert classifier.set_params(max_epochs=1).fit(X, y).n_iter_ == 1
    assert len(classifier.predict(X)) == len(X)


def test_a_training_that_goes_on_has_the_epochs_that_are_left(shapes, tmp_path):
    X, y = shapes

    class Interrupting(Recorder):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            if self.ended[-1] == "step of training" and context.task_id == 1:
                raise KeyboardInterrupt

    classifier = FineTunedClassifier(**FAST, random_state=0, checkpoint_dir=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        classifier.set_callbacks(Interrupting()).fit(X, y)
    recorder = fit(classifier, X, y)
    assert recorder.largest["training"] == recorder.ended.count("step of training") == 2


def test_the_scoring_monitor_has_a_score_of_each_epoch(shapes):
    X, y = shapes
    monitor = callback.ScoringMonitor(scoring="neg_log_loss")
    classifier = FineTunedClassifier(**FAST, freeze_depth=-1, random_state=0)
    classifier.set_callbacks(monitor)
    for _ in range(2):  # the second fit starts from a fitted estimator
        classifier.fit(X, y)
        rows = [row for row in monitor.get_logs().data if row["task_name"] == "step"]
        scores = [row["neg_log_loss"] for row in rows]
        assert len(scores) == 3
        assert len(set(scores)) == 3
    from sklearn.metrics import log_loss

    # in training, the frozen norms are folded: the last digits differ
    assert scores[-1] == pytest.approx(-log_loss(y, classifier.predict_proba(X)), rel=1e-3)


def test_a_fit_is_the_same_with_callbacks_and_without(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**FAST, freeze_depth=-1, random_state=0)
    expected = clone(classifier).fit(X, y).predict_proba(X)
    classifier.set_callbacks(callback.ScoringMonitor(scoring="accuracy"))
    np.testing.assert_array_equal(classifier.fit(X, y).predict_proba(X), expected)


def test_fitted_estimators_are_saved_without_callbacks(shapes):
    X, y = shapes
    for estimator in (
        PretrainedFeatureTransformer("mini"),
        FineTunedTransformer(FineTunedClassifier(**FAST), cv=2),
    ):
        estimator.set_callbacks(Recorder())
        unfitted = pickle.loads(pickle.dumps(estimator))
        assert hasattr(unfitted, "_skl_callbacks")  # a worker has them
        estimator.fit(X, y)
        assert not {name for name in vars(estimator) if "callback" in name} - {"_skl_callbacks"}
        saved = pickle.loads(pickle.dumps(estimator))
        assert not [name for name in vars(saved) if "callback" in name]
        assert hasattr(estimator, "_skl_callbacks")


def test_a_callback_of_scikit_learn_is_no_callback_of_skorch(shapes):
    classifier = FineTunedClassifier(**FAST, callbacks=[])
    recorder = fit(classifier, *shapes)
    assert classifier.callbacks == []
    assert recorder.ended


def test_the_progress_bar_of_scikit_learn_shows_our_steps(shapes, capsys):
    pytest.importorskip("rich")
    X, y = shapes
    search = GridSearchCV(FineTunedClassifier(**FAST), {}, cv=2)
    search.set_callbacks(callback.ProgressBar(max_propagation_depth=None)).fit(X, y)
    assert "FineTunedClassifier - training" in capsys.readouterr().out
