"""skops: files that load with nothing to trust but this package's types."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytest.importorskip("skops")

import skops.io as sio
from skops.io.exceptions import UntrustedTypesFoundException

# scikit-learn 1.6 keeps one of these in a ColumnTransformer; later versions don't.
NOT_KNOWN_TO_SKOPS = {"sklearn.compose._column_transformer._RemainderColsList"}


def own_types(**file):
    """Return the types to trust, after a look at whose they are."""
    types = sio.get_untrusted_types(**file)
    own = [name for name in types if name.startswith("sktransfer.")]
    assert own
    assert set(types) - set(own) <= NOT_KNOWN_TO_SKOPS
    return types


def test_a_fitted_pipeline_loads_with_only_this_packages_types_trusted(shapes, model, tmp_path):
    X, y = shapes
    path = tmp_path / "model.skops"
    sio.dump(model.fit(X, y), path)
    types = own_types(file=path)
    with pytest.raises(UntrustedTypesFoundException, match="PretrainedFeatureTransformer"):
        sio.load(path)
    loaded = sio.load(path, trusted=types)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert loaded["rows"].backbone_spec_ == model["rows"].backbone_spec_
    assert path.stat().st_size < 100_000  # no weights of the backbone


def test_what_was_loaded_can_be_cloned_and_fitted_again(shapes, model):
    X, y = shapes
    dumped = sio.dumps(model.fit(X, y))
    loaded = sio.loads(dumped, trusted=own_types(data=dumped))
    again = clone(loaded).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_an_image_column_beside_numbers_adds_no_type_to_trust(shapes, transformer):
    pd = pytest.importorskip("pandas")
    X, y = shapes
    table = pd.DataFrame({"photo": X, "weight": np.arange(len(X), dtype=float)})
    columns = make_column_transformer((transformer, "photo"), (StandardScaler(), ["weight"]))
    model = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(table, y)
    dumped = sio.dumps(model)
    loaded = sio.loads(dumped, trusted=own_types(data=dumped))
    np.testing.assert_array_equal(loaded.predict_proba(table), model.predict_proba(table))
