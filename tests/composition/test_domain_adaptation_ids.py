"""skada's splitters and scorers, with ids as X: `ImagesFromIds` is the first step."""

import numpy as np
import pytest
import sklearn
from PIL import Image, ImageOps
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

from sktransfer import count_forward_passes
from sktransfer.domain_adaptation import ImagesFromIds

# skada switches scikit-learn's metadata routing on when it is imported, for all that
# comes after; the tests beside these shall not depend on whether it was.
with sklearn.config_context():
    skada = pytest.importorskip("skada")
    from skada import metrics, model_selection


@pytest.fixture(autouse=True)
def _routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def domains(shapes, tmp_path_factory):
    """Return paths of the drawn images and their negatives, masked labels, and domains."""
    X, y = shapes
    folder = tmp_path_factory.mktemp("negatives")
    negatives = []
    for i, path in enumerate(X):
        negatives.append(str(folder / f"{i:02d}.png"))
        ImageOps.invert(Image.open(path)).save(negatives[-1])
    paths = np.concatenate([X, np.array(negatives, dtype=object)])
    labels = np.concatenate([np.where(y == "disc", 1, 0), np.full(len(X), -1)])
    return paths, labels, np.repeat([1, -2], len(X))


@pytest.fixture
def ids(domains):
    return np.arange(len(domains[0])).reshape(-1, 1)


@pytest.fixture
def adapted(domains, classifier):
    """Return the pipeline of ids, their images, and a classifier that is adapted to the target."""
    classifier.set_params(adapt="mcc").set_score_request(sample_weight=True)
    return skada.make_da_pipeline(ImagesFromIds(domains[0]), classifier)


SPLITTERS = [
    model_selection.SourceTargetShuffleSplit(n_splits=2, test_size=0.3, random_state=0),
    model_selection.DomainShuffleSplit(n_splits=2, test_size=0.3, random_state=0),
    model_selection.StratifiedDomainShuffleSplit(n_splits=2, test_size=0.3, random_state=0),
]


def scores_of(model, ids, domains, scorer, cv=SPLITTERS[0]):
    """Return the score of each fold, by a scorer or one that a class makes."""
    _, y, domain = domains
    scorer = scorer() if isinstance(scorer, type) else scorer
    result = cross_validate(
        model,
        ids,
        y.copy(),
        params={"sample_domain": domain},
        cv=cv,
        scoring=scorer,
        error_score="raise",
    )
    return result["test_score"]


def n_used(cv, ids, domains, with_sources=False):
    """Return the number of images that the folds train on, or predict: those of the target."""
    _, y, domain = domains
    used = np.zeros(len(ids), dtype=bool)
    for train, test in cv.split(ids, y, domain):
        used[train] = True
        used[test[domain[test] < 0]] = True
        used[test] |= with_sources
    return np.count_nonzero(used)


@pytest.mark.parametrize("cv", SPLITTERS, ids=lambda cv: type(cv).__name__)
def test_every_splitter_takes_ids_and_each_image_passes_once(domains, ids, adapted, cv):
    with count_forward_passes() as counter:
        scores = scores_of(adapted, ids, domains, metrics.PredictionEntropyScorer, cv)
    assert counter.computed == n_used(cv, ids, domains)
    assert (scores <= 0).all()  # an entropy, with its sign turned
    assert (scores >= -np.log(2)).all()  # of two classes


def test_leave_one_domain_out_takes_ids_that_are_both_source_and_target(domains, adapted):
    paths, _, domain = domains
    positions = np.arange(len(paths))
    both = np.concatenate([positions, positions]).reshape(-1, 1)
    number = np.abs(domain)
    _, y, _ = domains
    labels = np.concatenate([y[:24], y[:24]])  # the negatives have those of the drawings
    cv = model_selection.LeaveOneDomainOut(test_size=0.3, random_state=0)
    with count_forward_passes() as counter:
        scores = scores_of(
            adapted,
            both,
            (paths, np.concatenate([labels, np.full(48, -1)]), np.concatenate([number, -number])),
            metrics.PredictionEntropyScorer,
            cv,
        )
    assert counter.computed == len(paths)
    assert len(scores) == 2
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "scorer",
    [
        metrics.PredictionEntropyScorer,
        metrics.SoftNeighborhoodDensity,
        metrics.CircularValidation,
        metrics.MaNoScorer,
    ],
)
def test_scorers_of_predictions_take_ids(domains, ids, adapted, scorer):
    with count_forward_passes() as counter:
        scores = scores_of(adapted, ids, domains, scorer)
    is_backward = scorer is metrics.CircularValidation  # it predicts the sources too
    assert counter.computed == n_used(SPLITTERS[0], ids, domains, is_backward)
    assert np.isfinite(scores).all()


def test_importance_weights_are_those_of_rows(domains, ids, adapted, transformer):
    densities = make_pipeline(
        ImagesFromIds(domains[0]), transformer, PCA(2, random_state=0), KernelDensity(bandwidth=5.0)
    )
    scorer = metrics.ImportanceWeightedScorer(weight_estimator=densities)
    scores = scores_of(adapted, ids, domains, scorer)
    assert ((scores >= 0) & (scores <= 1)).all()  # accuracies on the source
    assert "imagesfromids" in scorer.weight_estimator_source_.named_steps


def test_deep_embedded_validation_takes_the_rows_of_a_pipeline(domains, ids, transformer):
    model = skada.make_da_pipeline(
        ImagesFromIds(domains[0]), transformer, LogisticRegression(max_iter=1000)
    )
    scorer = metrics.DeepEmbeddedValidation(random_state=0)
    assert np.isfinite(scores_of(model, ids, domains, scorer)).all()
    assert scorer.domain_classifier_.n_features_in_ == 256


def test_deep_embedded_validation_of_a_fine_tuned_classifier_needs_one_of_images(
    domains, ids, adapted, transformer
):
    of_images = make_pipeline(transformer, LogisticRegression(max_iter=1000))
    scorer = metrics.DeepEmbeddedValidation(domain_classifier=of_images, random_state=0)
    assert np.isfinite(scores_of(adapted, ids, domains, scorer)).all()


def test_a_scorer_that_mixes_rows_of_ids_is_an_error(domains, ids, adapted):
    with pytest.raises(TypeError, match="MixValScorer mixes them, can't work on ids"):
        scores_of(adapted, ids, domains, metrics.MixValScorer(random_state=0))


def test_a_search_of_adapt_weight_with_scorer_and_splitter_passes_each_image_once(
    domains, ids, adapted
):
    _, y, domain = domains
    search = GridSearchCV(
        adapted,
        {"finetunedclassifier__adapt_weight": [0.1, 1.0]},
        scoring=metrics.SoftNeighborhoodDensity(),
        cv=SPLITTERS[0],
        error_score="raise",
    )
    with count_forward_passes() as counter:
        search.fit(ids, y.copy(), sample_domain=domain)
        predicted = search.predict(ids[24:])
    assert counter.computed == len(ids)
    assert set(predicted) <= {0, 1}
    assert np.ptp(search.cv_results_["mean_test_score"]) > 0
