import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import PretrainedFeatureTransformer
from sktransfer.inspection._rows import centred_unit_rows, inside, map_of, reader_of

NETWORK = PretrainedFeatureTransformer("mini", image_shape=(8, 8), pixel_range=(0, 16))


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(NETWORK, LogisticRegression()),
        make_pipeline(make_column_transformer((NETWORK, ["path"])), LogisticRegression()),
        make_pipeline(FeatureUnion([("rows", NETWORK)]), LogisticRegression()),
        GridSearchCV(make_pipeline(NETWORK, LogisticRegression()), {}),
        CalibratedClassifierCV(make_pipeline(NETWORK, LogisticRegression())),
    ],
)
def test_the_network_is_found_wherever_it_is(estimator):
    assert inside(estimator, PretrainedFeatureTransformer) is NETWORK
    assert reader_of(estimator) == ((8, 8), (0, 16))


def test_an_estimator_without_a_network_has_none():
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    assert inside(estimator, PretrainedFeatureTransformer) is None
    assert reader_of(estimator) == reader_of(None) == (None, None)


@pytest.fixture(scope="module")
def two_groups():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 20)).astype(np.float32)
    rows[30:] += 6
    rows[7] = np.nan
    return rows


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_map_keeps_groups_apart_and_leaves_out_what_was_not_read(two_groups, method):
    found = map_of(two_groups, method)
    assert found.method == method
    places = found.places
    assert np.flatnonzero(np.isnan(places).any(axis=1)).tolist() == [7]
    first, second = np.nanmean(places[:30], axis=0), places[30:].mean(axis=0)
    spread = max(np.nanstd(places[:30]), places[30:].std())
    assert np.linalg.norm(first - second) > 2 * spread
    assert (np.nanmin(places), np.nanmax(places)) == (0, 1)
    np.testing.assert_array_equal(map_of(two_groups, method).places, places)


def test_auto_takes_components_where_there_are_few(two_groups):
    assert map_of(two_groups, "auto").method == "tsne"
    assert map_of(two_groups[:10], "auto").method == "pca"
    assert np.isnan(map_of(two_groups[:2], "auto").places).all()
    assert np.isfinite(map_of(two_groups[:5, :1], "auto").places).all()


def test_equal_rows_have_places():
    assert np.isfinite(map_of(np.ones((25, 4), dtype=np.float32), "auto").places).all()


def test_centred_rows_tell_alike_from_unlike_whatever_their_mean(two_groups):
    rows = two_groups[:20] + 100
    units = centred_unit_rows(rows)(np.arange(8, 20))
    cosines = units @ units.T
    np.testing.assert_allclose(np.diag(cosines), 1, rtol=1e-5)
    assert np.abs(cosines - np.eye(12)).max() < 0.8
