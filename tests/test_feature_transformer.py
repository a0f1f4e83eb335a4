from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import (
    PretrainedFeatureTransformer,
    count_forward_passes,
    feature_cache_info,
)
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning, WeightsError

FLOAT32 = {"backbone": "mini", "precision": "float32"}


def test_a_row_has_the_width_of_the_last_stage(shapes):
    X, _ = shapes
    transformer = PretrainedFeatureTransformer(**FLOAT32)
    rows = transformer.fit_transform(X)
    assert rows.shape == (len(X), 256)
    assert rows.dtype == np.float32
    assert len(transformer.get_feature_names_out()) == 256


@pytest.mark.parametrize(("depth", "width"), [(None, 256), (-1, 128), (-2, 64), (1, 32), (0, 3)])
def test_depth_is_read_as_a_slice(shapes, depth, width):
    X, _ = shapes
    rows = PretrainedFeatureTransformer(**FLOAT32, depth=depth).fit_transform(X[:2])
    assert rows.shape == (2, width)


def test_transforming_changes_no_parameter_and_no_buffer(shapes):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer(**FLOAT32, feature_cache=None).fit(X)
    from sktransfer.backbones._registry import reload_backbone

    network = reload_backbone(fitted.backbone_spec_).model
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fitted.transform(X)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())


def test_bfloat16_rows_point_the_same_way_as_float32_rows(shapes):
    X, _ = shapes
    exact = PretrainedFeatureTransformer(**FLOAT32).fit_transform(X)
    rough = PretrainedFeatureTransformer("mini", precision="bfloat16").fit_transform(X)
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    assert cosine.min() > 0.999


def test_each_image_passes_once_in_a_grid_search_and_its_refit(shapes, cache):
    X, y = shapes
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", feature_cache=cache), LogisticRegression()
    )
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.01, 0.1, 1.0]}, cv=3)
    with count_forward_passes() as counter:
        search.fit(X, y)
        search.score(X, y)
    assert counter.computed == len(X)


@pytest.mark.parametrize("depths", [[None, -1, -2, -3, 0], [1, 2, 3, 4, 5]], ids=str)
def test_a_search_over_depths_passes_each_image_once(shapes, cache, depths):
    X, y = shapes
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", image_size=32, feature_cache=cache),
        LogisticRegression(max_iter=1000),
    )
    grid = {
        "pretrainedfeaturetransformer__depth": depths,
        "logisticregression__C": [0.01, 0.1, 1.0],
    }
    with count_forward_passes() as counter:
        GridSearchCV(pipeline, grid, cv=5).fit(X, y)
    assert counter.computed == len(X)


def test_a_search_over_depths_and_two_backbones_passes_each_image_twice(
    shapes, cache, imagenet_weights
):
    X, y = shapes
    pipeline = make_pipeline(
        PretrainedFeatureTransformer(image_size=64, feature_cache=cache),
        LogisticRegression(max_iter=1000),
    )
    grid = {
        "pretrainedfeaturetransformer__backbone": ["mini", imagenet_weights],
        "pretrainedfeaturetransformer__depth": [-3, -1, None],
    }
    with count_forward_passes() as counter:
        GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    assert counter.computed == 2 * len(X)


@pytest.mark.parametrize("cached", [True, False])
def test_rows_of_several_depths_stand_side_by_side_after_one_pass(shapes, cache, cached):
    X, _ = shapes
    options = {"image_size": 32, "precision": "float32"}
    folder = cache if cached else None
    several = PretrainedFeatureTransformer(
        "mini", depth=(-2, None, 0), feature_cache=folder, **options
    )
    with count_forward_passes() as counter:
        rows = several.fit_transform(X)
    assert counter.computed == len(X)
    assert several.depth_ == (3, 5, 0)
    alone = [
        PretrainedFeatureTransformer("mini", depth=depth, feature_cache=None, **options)
        for depth in (-2, None, 0)
    ]
    expected = np.hstack([transformer.fit_transform(X) for transformer in alone])
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    names = several.get_feature_names_out()
    assert len(names) == len(set(names)) == rows.shape[1] == several.n_features_out_
    assert names[0] == "pretrainedfeaturetransformer_stage2_0"
    assert names[-1] == "pretrainedfeaturetransformer_pixels_2"


def test_no_depth_at_all_is_an_error(shapes):
    with pytest.raises(ValueError, match=r"depth must not be empty.*such as \(-1, None\)"):
        PretrainedFeatureTransformer("mini", depth=()).fit(shapes[0])


def test_a_transformer_alone_stores_its_rows_and_no_activations(shapes, cache):
    X, _ = shapes
    transformer = PretrainedFeatureTransformer("mini", depth=-3, feature_cache=cache).fit(X)
    transformer.transform(X)
    info = feature_cache_info(cache)
    assert info.n_entries == len(X) * len(transformer.backbone_spec_.stages)


def test_without_a_store_every_call_computes_each_different_image(shapes):
    X, _ = shapes
    fitted = PretrainedFeatureTransformer("mini", feature_cache=None).fit(X)
    with count_forward_passes() as counter:
        fitted.transform(np.concatenate([X[:3], X[:3]]))
        fitted.transform(X[:3])
    assert counter.computed == 6


def test_a_changed_file_is_a_new_image(tmp_path, cache):
    path = tmp_path / "image.png"
    fitted = PretrainedFeatureTransformer("mini", feature_cache=cache)
    Image.new("RGB", (32, 32), "red").save(path)
    red = fitted.fit_transform([path])
    Image.new("RGB", (32, 33), "blue").save(path)
    assert not np.allclose(fitted.transform([path]), red)


def test_a_grid_over_backbones_scores_different_networks(shapes, cache):
    # others build the network in __init__, so that a grid scores one and the same
    X, y = shapes
    pipeline = make_pipeline(
        PretrainedFeatureTransformer("mini", feature_cache=cache), LogisticRegression()
    )
    grid = {"pretrainedfeaturetransformer__weights": ["default", None]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    rows = [
        clone(search.estimator[0]).set_params(weights=weights).fit_transform(X)
        for weights in ("default", None)
    ]
    assert not np.allclose(*rows)


def test_weights_that_changed_since_fit_are_refused(tmp_path, shapes, mini_file):
    from sktransfer.backbones._weights import read_metadata, read_tensors, write_backbone_file

    X, _ = shapes
    path = tmp_path / "own.safetensors"
    metadata, tensors = read_metadata(mini_file), read_tensors(mini_file)
    write_backbone_file(path, tensors, metadata)
    fitted = PretrainedFeatureTransformer(path).fit(X)
    tensors["stem.1.bias"] = tensors["stem.1.bias"] + 1
    write_backbone_file(path, tensors, metadata)
    with pytest.raises(WeightsError, match="not those that this estimator was fitted with"):
        fitted.transform(X)


def test_an_image_column_stands_beside_numbers(shapes):
    X, y = shapes
    table = pd.DataFrame({"photo": X, "length": np.arange(len(X), dtype=float)})
    columns = ColumnTransformer(
        [("image", PretrainedFeatureTransformer("mini"), "photo"), ("n", "passthrough", ["length"])]
    )
    assert columns.fit_transform(table, y).shape == (len(X), 257)
    frame = columns.set_output(transform="pandas").fit_transform(table, y)
    assert frame.columns[0].startswith("image__")


def test_importing_and_constructing_load_no_network():
    transformer = PretrainedFeatureTransformer("no such backbone", depth="deep")
    assert vars(transformer)["backbone"] == "no such backbone"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backbone": "resnet17"}, r"backbone='resnet17' is unknown.*resnet18"),
        ({"backbone": 3}, r"'backbone' parameter.*Got 3"),
        ({"backbone_params": [1]}, r"'backbone_params' parameter.*dict.*Got \[1\]"),
        ({"weights": 3}, r"'weights' parameter.*Got 3"),
        ({"weights": "IMAGENET9"}, r"weights='IMAGENET9' is unknown"),
        ({"depth": 9}, r"depth=9 is out of range.*5 stages.*stem.*-5 to 5"),
        (
            {"depth": "deep"},
            r"depth must be an int or None, got 'deep'; an int is a number of the stages stem, ",
        ),
        ({"pooling": "median"}, r"'pooling' parameter.*Got 'median'"),
        ({"pooling": "cls"}, r"pooling='cls' needs a network with a class token"),
        ({"image_size": 8}, r"'image_size' parameter.*Got 8"),
        ({"pixel_range": (3, 1)}, r"pixel_range must be.*got \(3, 1\)"),
        ({"pixel_range": "auto"}, r"'pixel_range' parameter.*Got 'auto'"),
        ({"on_error": "skip"}, r"'on_error' parameter.*Got 'skip'"),
        ({"batch_size": 0}, r"'batch_size' parameter.*Got 0"),
        ({"device": "tpu"}, r"device must be.*'tpu'|device='tpu' is not"),
        ({"precision": "float8"}, r"'precision' parameter.*Got 'float8'"),
        ({"feature_cache": 3}, r"'feature_cache' parameter.*Got 3"),
        ({"n_jobs": 0.5}, r"'n_jobs' parameter.*Got 0.5"),
        ({"n_jobs": 0}, r"'n_jobs' parameter.*Got 0"),
    ],
)
def test_a_wrong_parameter_names_itself_its_value_and_what_is_allowed(shapes, wrong, message):
    X, _ = shapes
    with pytest.raises((TypeError, ValueError), match=message):
        PretrainedFeatureTransformer(**{"backbone": "mini", **wrong}).fit_transform(X[:2])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "X holds no images"),
        (np.empty((0, 8, 8, 3)), "X holds no images"),
        ("image.png", r"pass a list: \[X\]"),
        (np.zeros((2, 64)), "image_shape"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), "channels come last"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), "2 columns"),
    ],
)
def test_x_that_is_no_images_is_refused(X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        PretrainedFeatureTransformer("mini").fit(X)


def test_every_bad_image_is_named_by_position_and_path_at_once(shapes, tmp_path):
    X, _ = shapes
    (tmp_path / "text.jpg").write_text("this is no image")
    bad = [str(tmp_path / "text.jpg"), str(tmp_path / "missing.png"), str(tmp_path)]
    mixed = [X[0], bad[0], X[1], bad[1], bad[2], None]
    with pytest.raises(ImageReadError) as caught:
        PretrainedFeatureTransformer("mini").fit_transform(mixed)
    failures = caught.value.failures
    assert [failure.position for failure in failures] == [1, 3, 4, 5]
    assert [failure.source for failure in failures[:3]] == bad
    for path in bad:
        assert path in str(caught.value)


def test_on_error_nan_gives_rows_of_nan_and_one_warning_that_names_them(shapes, tmp_path):
    X, _ = shapes
    missing = str(tmp_path / "missing.png")
    mixed = [X[0], missing, X[1], None]
    fitted = PretrainedFeatureTransformer("mini", on_error="nan").fit(mixed)
    with pytest.warns(
        UnreadableImageWarning, match=r"rows of NaN: 2 of 4.*\n.*X\[1\].*missing"
    ) as w:
        rows = fitted.transform(mixed)
    assert len(w) == 1
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(rows[[0, 2]], fitted.transform(X[:2]))


def test_on_error_nan_goes_on_to_an_imputer_and_a_boosted_model(shapes):
    X, y = shapes
    X = [None if i % 5 == 0 else path for i, path in enumerate(X)]
    transformer = PretrainedFeatureTransformer("mini", on_error="nan")
    for rest in ([SimpleImputer(), LogisticRegression()], [HistGradientBoostingClassifier()]):
        with pytest.warns(UnreadableImageWarning):
            predicted = make_pipeline(transformer, *rest).fit(X, y).predict(X)
        assert predicted.shape == (len(X),)


def test_no_image_that_can_be_read_is_nothing_but_nan(tmp_path):
    X = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    with pytest.warns(UnreadableImageWarning):
        rows = PretrainedFeatureTransformer("mini", on_error="nan").fit_transform(X)
    assert rows.shape == (2, 256)
    assert np.isnan(rows).all()


def test_a_hundredth_of_ten_thousand_files_is_corrupt_and_every_other_row_is_right(tmp_path):
    rng = np.random.default_rng(0)
    n, n_different = 10_000, 50
    contents = []
    for _ in range(n_different):
        buffer = BytesIO()
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    bad = set(rng.choice(n, n // 100, replace=False).tolist())
    paths = []
    for i in range(n):
        path = tmp_path / f"{i:05d}.png"
        content = contents[i % n_different]
        path.write_bytes(content[: len(content) // 2] if i in bad else content)
        paths.append(str(path))
    fitted = PretrainedFeatureTransformer("mini", image_size=32).fit(paths)
    with pytest.raises(ImageReadError) as caught:
        fitted.transform(paths)
    assert {failure.position for failure in caught.value.failures} == bad
    assert all(failure.source == paths[failure.position] for failure in caught.value.failures)

    expected = fitted.transform([Image.open(BytesIO(content)) for content in contents])
    with pytest.warns(UnreadableImageWarning, match="100 of 10000"):
        rows = fitted.set_params(on_error="nan").transform(paths)
    good = [i for i in range(n) if i not in bad]
    # files and pictures have keys of their own, so the rows were computed twice
    np.testing.assert_allclose(
        rows[good], expected[[i % n_different for i in good]], rtol=0.05, atol=0.05
    )
    assert np.isnan(rows[sorted(bad)]).all()


def test_floats_outside_the_range_name_pixel_range():
    X = np.full((2, 8, 8), 7.5)
    with pytest.raises(ImageReadError, match="pixel_range"):
        PretrainedFeatureTransformer("mini").fit_transform(X)
    PretrainedFeatureTransformer("mini", pixel_range=(0, 10)).fit_transform(X)


def test_one_mistake_made_for_all_images_is_said_first():
    X = np.full((50, 8, 8), 7.5)
    with pytest.raises(
        ImageReadError, match=r"^50 of 50 images can't be read: values from 7.5"
    ) as raised:
        PretrainedFeatureTransformer("mini").fit_transform(X)
    assert "Leave these images out" not in str(raised.value)


def test_the_error_for_single_images_names_what_finds_them_beforehand():
    X = [np.zeros((8, 8, 3), dtype=np.uint8), b"no image"]
    with pytest.raises(ImageReadError, match=r"X of this call.*check_images\(X\)"):
        PretrainedFeatureTransformer("mini").fit_transform(X)
