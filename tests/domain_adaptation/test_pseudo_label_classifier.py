"""Pseudo-labels of rows: drawn clusters, of which a second domain is stretched and moved."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm
from sklearn import config_context
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer
from sktransfer.domain_adaptation import PseudoLabelClassifier
from sktransfer.domain_adaptation._prototypes import DiscriminantPrototypes

N, N_CLASSES, N_COLUMNS = 120, 3, 8
ROTATION = 0.3


class Unreadable:
    """A label that raises when anything is asked of it."""

    def _raise(self, *_):
        raise AssertionError("a label of the target was read")

    __eq__ = __ne__ = __lt__ = __gt__ = __hash__ = __len__ = __iter__ = __array__ = _raise
    __repr__ = __str__ = __bool__ = __int__ = __float__ = __index__ = _raise


def drawn(seed=0, distance=4.0):
    """Return rows of two domains in mixed order, their labels, and which are of the target."""
    rng = np.random.default_rng(seed)
    y = np.tile(np.arange(N_CLASSES), 2 * N // N_CLASSES)
    X = rng.normal(size=(2 * N, N_COLUMNS)) + distance * np.eye(N_COLUMNS)[y]
    angles = rng.normal(size=(N_COLUMNS,) * 2)
    X[N:] = 3 * X[N:] @ expm(ROTATION * (angles - angles.T)) + 20
    order = rng.permutation(2 * N)
    return X[order], y[order], order >= N


@pytest.fixture(scope="module")
def data():
    X, y, is_target = drawn()
    return X, y, is_target, np.where(is_target, -1, 1)


@pytest.fixture(scope="module")
def fitted(data):
    X, y, _, domain = data
    return PseudoLabelClassifier().fit(X, y, sample_domain=domain)


def test_it_classifies_a_target_that_the_source_alone_does_not(data, fitted):
    X, y, is_target, domain = data
    source_only = make_pipeline(StandardScaler(), LogisticRegression())
    assert source_only.fit(X[~is_target], y[~is_target]).score(X[is_target], y[is_target]) < 0.7
    assert fitted.score(X[is_target], y[is_target]) > 0.95
    everything = fitted.score(X, y, sample_domain=domain, allow_source=True)
    assert everything > 0.95


def test_pseudo_labels_are_better_than_the_standardised_source():
    gains = []
    for seed in range(3):
        X, y, is_target = drawn(seed, distance=3.0)
        masked = np.where(is_target, -1, y)
        scores = [
            PseudoLabelClassifier(n_iter=n_iter).fit(X, masked).score(X[is_target], y[is_target])
            for n_iter in (0, 10)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


@pytest.mark.parametrize("kind", [np.array, list, pd.Series])
def test_labels_of_the_target_are_not_read(data, fitted, kind):
    X, y, is_target, domain = data
    guarded = np.empty(len(y), dtype=object)
    for i, label in enumerate(y):
        guarded[i] = Unreadable() if is_target[i] else int(label)
    guarded = guarded if kind is np.array else kind(guarded)
    again = PseudoLabelClassifier().fit(X, guarded, sample_domain=domain)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_a_label_of_minus_one_is_one_that_is_not_known(data, fitted):
    X, y, is_target, _ = data
    masked = PseudoLabelClassifier().fit(X, np.where(is_target, -1, y))
    np.testing.assert_array_equal(masked.predict(X), fitted.predict(X))
    assert masked.classes_.tolist() == [0, 1, 2]


def test_labels_of_minus_one_and_one_are_two_classes(data):
    X, y, *_ = data
    classifier = PseudoLabelClassifier().fit(X, np.where(y == 1, 1, -1))
    assert classifier.classes_.tolist() == [-1, 1]
    assert classifier.n_iter_ == 0


def test_labels_of_text_are_returned_as_they_came(data, fitted):
    X, y, _, domain = data
    names = np.array(["ant", "bee", "cat"])
    classifier = PseudoLabelClassifier().fit(X, names[y], sample_domain=domain)
    np.testing.assert_array_equal(classifier.predict(X), names[fitted.predict(X)])
    np.testing.assert_array_equal(classifier.pseudo_labels_, names[fitted.pseudo_labels_])


def test_attributes_say_what_each_iteration_kept(data, fitted):
    _, _, is_target, _ = data
    assert fitted.n_iter_ == 10
    np.testing.assert_array_equal(fitted.target_positions_, np.flatnonzero(is_target))
    assert fitted.pseudo_labels_.shape == fitted.confidences_.shape == (N,)
    assert fitted.n_selected_.shape == (10, N_CLASSES)
    totals = fitted.n_selected_.sum(axis=1)
    assert (np.diff(totals) > 0).all()
    assert totals[-1] == N
    # of each class a tenth more, rounded up
    np.testing.assert_array_equal(totals[:2] >= [N // 10, N // 5], True)
    assert totals[0] <= N // 10 + N_CLASSES
    assert fitted.n_changed_.shape == (10,)
    assert fitted.n_changed_[0] == 0
    assert ((fitted.confidences_ > 1 / N_CLASSES) & (fitted.confidences_ <= 1)).all()


class Recorder(LogisticRegression):
    """A classifier that remembers how many rows each fit had."""

    fits: list = []

    def fit(self, X, y):
        Recorder.fits.append((X, y))
        return super().fit(X, y)


def test_the_surest_of_each_class_are_kept_first(data):
    X, y, _, domain = data
    Recorder.fits = []
    classifier = PseudoLabelClassifier(Recorder(), n_iter=2).fit(X, y, sample_domain=domain)
    (source, labels), (half, kept), _ = Recorder.fits
    assert len(source) == N
    np.testing.assert_array_equal(labels, y[domain > 0])
    first = LogisticRegression().fit(source, labels)
    rows = classifier._rows.transform(X[domain < 0], None)
    probabilities = first.predict_proba(rows)
    pseudo, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    for k in range(N_CLASSES):
        members = np.flatnonzero(pseudo == k)
        surest = members[np.argsort(-confidence[members])][: -(-len(members) // 2)]
        given = half[N:][kept[N:] == k]
        np.testing.assert_allclose(np.sort(given, axis=0), np.sort(rows[surest], axis=0))


def test_without_target_rows_it_is_the_classifier_alone(data):
    X, y, is_target, _ = data
    source, labels = X[~is_target], y[~is_target]
    classifier = PseudoLabelClassifier(LogisticRegression(), n_components=None).fit(source, labels)
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(source, labels)
    np.testing.assert_allclose(classifier.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    assert classifier.n_iter_ == 0
    assert len(classifier.pseudo_labels_) == 0


def test_no_iterations_is_the_source_on_rows_standardised_by_domain(data):
    X, y, is_target, domain = data
    classifier = PseudoLabelClassifier(LogisticRegression(), n_iter=0, n_components=None)
    classifier.fit(X, y, sample_domain=domain)
    source, target = (StandardScaler().fit_transform(X[some]) for some in (~is_target, is_target))
    plain = LogisticRegression().fit(source, y[~is_target])
    np.testing.assert_allclose(
        classifier.predict_proba(X[is_target]), plain.predict_proba(target), atol=1e-6
    )
    np.testing.assert_allclose(
        classifier.predict_proba(X[~is_target], sample_domain=1, allow_source=True),
        plain.predict_proba(source),
        atol=1e-6,
    )
    np.testing.assert_array_equal(classifier.pseudo_labels_, plain.predict(target))


def test_the_prediction_of_a_row_does_not_depend_on_the_others(data, fitted):
    X, *_ = data
    np.testing.assert_allclose(fitted.predict_proba(X[:5]), fitted.predict_proba(X)[:5])
    np.testing.assert_allclose(fitted.predict_proba(X[:1]), fitted.predict_proba(X)[:1])


@pytest.mark.parametrize("n_iter", [0, 10])
def test_one_labelled_row_a_class_is_enough(data, n_iter):
    X, y, is_target, domain = data
    first = [np.flatnonzero((y == k) & ~is_target)[0] for k in range(N_CLASSES)]
    kept = np.concatenate([first, np.flatnonzero(is_target)])
    classifier = PseudoLabelClassifier(n_iter=n_iter)
    classifier.fit(X[kept], y[kept], sample_domain=domain[kept])
    assert classifier.score(X[is_target], y[is_target]) > 0.6
    assert np.isfinite(classifier.predict_proba(X)).all()
    assert len(np.unique(classifier.confidences_)) > N / 2


def test_a_class_of_one_row_is_one_among_others(data):
    X, y, is_target, domain = data
    kept = is_target | (y > 0)
    kept[np.flatnonzero((y == 0) & ~is_target)[0]] = True
    classifier = PseudoLabelClassifier().fit(X[kept], y[kept], sample_domain=domain[kept])
    assert set(classifier.predict(X[is_target])) == {0, 1, 2}


def test_the_default_classifier_has_the_discriminants_of_scikit_learn(data):
    X, y, is_target, _ = data
    ours = DiscriminantPrototypes(0.3).fit(X[~is_target], y[~is_target])
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3)
    theirs.fit(X[~is_target], y[~is_target])
    np.testing.assert_array_equal(ours._transformed(X), theirs.transform(X))


def test_distances_take_no_array_of_rows_by_classes_by_columns():
    n_rows, n_classes = 4000, 40
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % n_classes
    X = rng.normal(size=(n_rows, n_classes)) + 4 * np.eye(n_classes)[y]
    fitted = DiscriminantPrototypes().fit(X, y)
    tracemalloc.start()
    fitted.predict_proba(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_rows * n_classes * (n_classes - 1) * 8 / 4


def test_a_domain_of_one_row_is_an_error_where_it_is_standardised(data):
    X, y, is_target, domain = data
    domain = domain.copy()
    domain[np.flatnonzero(is_target)[0]] = -3
    with pytest.raises(ValueError, match="the domain -3 has one row"):
        PseudoLabelClassifier().fit(X, y, sample_domain=domain)
    PseudoLabelClassifier(standardize=False, n_iter=1).fit(X, y, sample_domain=domain)


def test_several_targets_are_standardised_one_by_one():
    X, y, is_target = drawn()
    X2, y2, is_target2 = drawn(1)
    X2 = np.where(is_target2[:, None], -X2 / 9, X2)
    X, y = np.concatenate([X, X2[is_target2]]), np.concatenate([y, y2[is_target2]])
    domain = np.concatenate([np.where(is_target, -1, 1), np.full(is_target2.sum(), -2)])
    classifier = PseudoLabelClassifier(n_iter=0).fit(X, y, sample_domain=domain)
    rows = classifier._rows
    for number in (1, -1, -2):
        some = rows.transform(X[domain == number], domain[domain == number])
        np.testing.assert_allclose(some.mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(some.std(axis=0), 1, atol=1e-9)
    # a target of another number, and rows of which it is not said, are of all targets together
    together = rows.transform(X[domain < 0], np.full((domain < 0).sum(), -7))
    np.testing.assert_allclose(together.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_array_equal(together, rows.transform(X[domain < 0], None))


def test_rows_of_sources_are_predicted_only_where_they_are_allowed(data, fitted):
    X, _, _, domain = data
    with pytest.raises(ValueError, match="allow_source=False"):
        fitted.predict(X, sample_domain=domain)
    assert len(fitted.predict(X, sample_domain=domain, allow_source=True)) == len(X)


def test_components_are_at_most_as_many_as_columns(data):
    X, y, _, domain = data
    wide = np.concatenate([X, np.random.default_rng(0).normal(size=(len(X), 60))], axis=1)
    for n_components, expected in ((None, 68), ("auto", 16), (5, 5), (400, 68)):
        classifier = PseudoLabelClassifier(n_components=n_components, n_iter=1)
        assert classifier.fit(wide, y, sample_domain=domain).n_components_ == expected


def test_rows_that_are_not_standardised_stay_as_they_are(data):
    X, y, _, domain = data
    classifier = PseudoLabelClassifier(standardize=False, n_components=None, n_iter=1)
    classifier.fit(X, y, sample_domain=domain)
    np.testing.assert_array_equal(classifier._rows.transform(X, domain), X)
    np.testing.assert_array_equal(classifier._rows.transform(X, None), X)


def test_a_constant_column_is_no_error(data):
    X, y, _, domain = data
    X = np.concatenate([X, np.full((len(X), 2), 1e8)], axis=1)
    classifier = PseudoLabelClassifier().fit(X, y, sample_domain=domain)
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("y", "domain", "message"),
    [
        (None, -1, "no row is of a source"),
        ("one class", None, "the source has one class"),
        ("masked", -1, "no row is of a source"),
    ],
)
def test_what_a_source_must_have_is_said(data, y, domain, message):
    X, true, *_ = data
    labels = {None: true, "one class": np.zeros(len(X)), "masked": np.full(len(X), -1)}[y]
    with pytest.raises(ValueError, match=message):
        PseudoLabelClassifier().fit(X, labels, sample_domain=domain and np.full(len(X), domain))


def test_an_estimator_without_probabilities_is_refused(data):
    X, y, _, domain = data
    with pytest.raises(ValueError, match="'estimator' parameter"):
        PseudoLabelClassifier(RidgeClassifier()).fit(X, y, sample_domain=domain)


def test_a_search_slices_the_domains_with_the_rows(data):
    X, y, is_target, domain = data
    search = GridSearchCV(
        PseudoLabelClassifier(),
        {"n_iter": [0, 3]},
        cv=2,
        scoring=lambda model, X, y: float(model.predict_proba(X).max(axis=1).mean()),
    )
    search.fit(X, y, sample_domain=domain)
    assert search.best_estimator_.score(X[is_target], y[is_target]) > 0.9


def test_a_pickle_and_a_clone_predict_the_same(data, fitted):
    X, y, _, domain = data
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
    again = clone(fitted).fit(X, y, sample_domain=domain)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_it_stands_behind_rows_of_a_network_in_a_pipeline(shapes):
    X, y = shapes
    domain = np.where(np.arange(len(y)) % 4 < 2, -1, 1)
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", image_size=32), PseudoLabelClassifier()
    )
    pipeline.fit(X, y, pseudolabelclassifier__sample_domain=domain)
    assert pipeline.score(X, y) > 0.8


def test_it_stands_in_pipelines_splitters_and_scorers_of_skada(data, fitted):
    X, y, is_target, domain = data
    masked = np.where(is_target, -1, y)
    with config_context(enable_metadata_routing=True):  # which skada sets for the process
        pytest.importorskip("skada")
        from skada import make_da_pipeline, metrics
        from skada.model_selection import SourceTargetShuffleSplit

        pipeline = make_da_pipeline(PseudoLabelClassifier())
        pipeline.fit(X, masked, sample_domain=domain)
        predicted = pipeline.predict(X[is_target], sample_domain=domain[is_target])
        np.testing.assert_array_equal(predicted, fitted.predict(X[is_target]))
        for scorer in (
            metrics.SoftNeighborhoodDensity(),
            metrics.CircularValidation(),
            metrics.MixValScorer(),
            metrics.DeepEmbeddedValidation(),
        ):
            assert np.isfinite(scorer(pipeline, X, masked, sample_domain=domain)), scorer
        search = GridSearchCV(
            pipeline,
            {"pseudolabelclassifier__n_iter": [0, 3]},
            cv=SourceTargetShuffleSplit(2, test_size=0.5, random_state=0),
            scoring=metrics.PredictionEntropyScorer(),
        )
        search.fit(X, masked, sample_domain=domain)
    none, three = search.cv_results_["mean_test_score"]
    assert np.isfinite([none, three]).all()
    assert none != three
