"""skada: from photographs of one kind to those of another, by `sample_domain`."""

import numpy as np
import pytest
import sklearn
from PIL import Image, ImageOps
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_validate
from sklearn.preprocessing import StandardScaler

from sktransfer import count_forward_passes

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
    """Return the drawn images and their negatives, labels 0 and 1, and their domains."""
    X, y = shapes
    folder = tmp_path_factory.mktemp("negatives")
    negatives = []
    for i, path in enumerate(X):
        negatives.append(str(folder / f"{i:02d}.png"))
        ImageOps.invert(Image.open(path)).save(negatives[-1])
    labels = np.where(y == "disc", 1, 0)
    paths = np.concatenate([X, np.array(negatives, dtype=object)])
    domain = np.repeat([1, -2], len(X))  # skada: a source is positive, a target negative
    return paths, np.concatenate([labels, labels]), domain


@pytest.mark.parametrize(
    "adapter", [skada.CORALAdapter, skada.OTMappingAdapter, skada.SubspaceAlignmentAdapter]
)
def test_a_pipeline_of_rows_and_an_adapter_is_that_adapter_on_the_rows(
    domains, transformer, adapter
):
    X, y, domain = domains
    steps = [StandardScaler(), PCA(8, random_state=0), adapter(), LogisticRegression()]
    with count_forward_passes() as counter:
        model = skada.make_da_pipeline(transformer, *steps)
        model.fit(X, y.copy(), sample_domain=domain)
        predicted = model.predict(X[24:], sample_domain=domain[24:])
    assert counter.computed == len(X)

    rows = transformer.fit_transform(X)
    by_hand = skada.make_da_pipeline(*steps).fit(rows, y.copy(), sample_domain=domain)
    np.testing.assert_array_equal(predicted, by_hand.predict(rows[24:], sample_domain=domain[24:]))


def test_labels_of_the_target_are_not_looked_at(domains, transformer):
    X, y, domain = domains
    model = skada.make_da_pipeline(transformer, skada.CORALAdapter(), LogisticRegression())
    wrong = np.where(domain < 0, 1 - y, y)
    told, misled = (
        sklearn.clone(model).fit(X, labels, sample_domain=domain).predict_proba(X[24:])
        for labels in (y.copy(), wrong)
    )
    np.testing.assert_array_equal(told, misled)


def test_cross_validation_passes_sample_domain_on_and_each_image_once(domains, transformer):
    X, y, domain = domains
    model = skada.make_da_pipeline(transformer, skada.CORALAdapter(), LogisticRegression())
    # skada's own splitters want numbers in X; here each fold tests half of the target
    folds = [
        (np.concatenate([np.arange(24), 24 + train]), 24 + test)
        for train, test in KFold(2).split(X[24:])
    ]
    with count_forward_passes() as counter:
        result = cross_validate(
            model, X, y, params={"sample_domain": domain}, cv=folds, error_score="raise"
        )
    assert counter.computed == len(X)
    for (train, test), score in zip(folds, result["test_score"], strict=True):
        fitted = sklearn.clone(model).fit(X[train], y[train], sample_domain=domain[train])
        assert score == fitted.score(X[test], y[test], sample_domain=domain[test])


def test_arrays_of_pixels_go_through_its_splitters_and_scorers(domains, transformer):
    paths, y, domain = domains
    X = np.stack([np.asarray(Image.open(path)) for path in paths])
    model = skada.make_da_pipeline(transformer, skada.CORALAdapter(), LogisticRegression())
    with count_forward_passes() as counter:
        result = cross_validate(
            model,
            X,
            np.where(domain < 0, -1, y),  # skada 0.5 tells scorers nothing else of domains
            params={"sample_domain": domain},
            cv=model_selection.SourceTargetShuffleSplit(n_splits=2, random_state=0),
            scoring=metrics.PredictionEntropyScorer(),
            error_score="raise",
        )
    assert counter.computed == len(X)
    assert (result["test_score"] <= 0).all()  # an entropy, with its sign turned
    assert (result["test_score"] >= -np.log(2)).all()  # of two classes
