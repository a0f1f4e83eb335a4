import json
import pickle
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, cross_val_predict
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, count_forward_passes
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning
from sktransfer.inspection import ErrorReport

WRONG = [3, 17, 40]


@pytest.fixture(scope="module")
def report(colours, store):
    X, y = colours
    network = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=store)
    pipeline = make_pipeline(network, LogisticRegression(C=0.01, max_iter=1000))
    return ErrorReport.from_cv(pipeline, X, y, cv=3, title="Colours")


def data_of(page):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


# what is found


def test_planted_wrong_labels_are_the_first_that_are_listed(report):
    assert sorted(issue.position for issue in report.label_issues) == WRONG
    assert sorted(issue.position for issue in report.doubtful_labels) == WRONG
    assert "3 labels are likely wrong" in report.html()


def test_predictions_are_those_of_cross_validation(report, colours, pipeline):
    X, y = colours
    splitter = sklearn.model_selection.StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_predict(pipeline, X, y, cv=splitter, method="predict_proba")
    np.testing.assert_allclose(report.probabilities, expected, rtol=1e-6)
    assert report.classes.tolist() == ["blue", "green", "red"]
    assert report.accuracy.value == (report.y_true == report.y_pred).mean() == 57 / 60
    assert report.accuracy.low < 57 / 60 < report.accuracy.high
    for fold, (_, test) in enumerate(splitter.split(X, y)):
        assert (report.folds[test] == fold).all()


def test_a_fitted_estimator_is_asked_once(colours, pipeline):
    X, y = colours
    fitted = pipeline.fit(X[:30], y[:30])
    made = ErrorReport.from_estimator(fitted, X[30:], y[30:])
    np.testing.assert_array_equal(made.probabilities, fitted.predict_proba(X[30:]))
    assert made.folds is None
    assert [issue.position for issue in made.label_issues] == [10]


def test_given_probabilities_make_the_same_report(report, colours):
    X, y = colours
    rows = report._findings.rows.values
    made = ErrorReport.from_predictions(X, y, report.probabilities, rows=rows)
    assert made.label_issues[:] == report.label_issues[:]
    assert made.accuracy == report.accuracy
    without = ErrorReport.from_predictions(X, y, report.probabilities)
    assert sorted(issue.position for issue in without.label_issues) == WRONG
    assert "logarithms of the probabilities" in without.html()


def test_a_frame_has_a_row_for_each_image(report, colours):
    frame = report.to_frame()
    assert len(frame) == 60
    assert frame["right"].mean() == report.accuracy.value
    assert frame["position"][frame["suggested"].notna()].tolist() == WRONG
    np.testing.assert_allclose(frame["loss"], -np.log(frame["probability"]))
    assert (frame["width"] == 32).all()
    blue = colours[0][2].astype(float).mean(axis=(0, 1)) @ [0.299, 0.587, 0.114] / 255
    assert frame["brightness"][2] == pytest.approx(blue, abs=0.005)


def test_near_duplicates_with_different_labels_are_shown(colours, pipeline):
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    images = [Image.fromarray(image).resize((64, 64)) for image in coarse]
    X = np.array([np.asarray(image) for image in images])
    X[1] = X[0]
    X[3] = np.clip(X[2].astype(int) + 8, 0, 255)
    y = np.arange(40) % 2
    y[1] = 1 - y[0]
    made = ErrorReport.from_cv(pipeline, X, y, cv=2)
    assert [found.positions for found in made.duplicates] == [(0, 1), (2, 3)]
    assert made._findings.telling_duplicates[0].positions == (0, 1)
    assert "Different labels" in made.html()


def test_a_report_holds_no_network(report, tuned_report):
    assert len(pickle.dumps(tuned_report[0])) < 10 * len(tuned_report[0].html())
    assert pickle.loads(pickle.dumps(report)).html() == report.html()


# what it costs


def test_stored_rows_are_not_computed_again(colours, pipeline, cache):
    X, y = colours
    pipeline.steps[0][1].set_params(feature_cache=cache)  # which is empty
    with count_forward_passes() as counter:
        made = ErrorReport.from_cv(pipeline, X, y, cv=3)
        made.html()
        assert counter.computed == 60
        ErrorReport.from_cv(pipeline, X, y, cv=2)
        ErrorReport.from_estimator(pipeline.fit(X, y), X, y).html()
        assert counter.computed == 60


def test_maps_of_a_pipeline_take_one_forward_pass_each_and_are_drawn_where_asked_for(
    colours, pipeline, cache
):
    X, y = colours
    pipeline.steps[0][1].set_params(feature_cache=cache)  # which is empty
    with count_forward_passes() as counter:
        made = ErrorReport.from_cv(pipeline, X, y, cv=3, activation_maps=2)
    assert counter.computed == 60 + 2
    assert made.html().count('class="overlay"') == 2


@pytest.fixture(scope="module")
def tuned_report(colours, tmp_path_factory):
    X, y = colours
    classifier = FineTunedClassifier(
        "mini", recipe="fast", image_size=32, max_epochs=2, freeze_depth=-1, random_state=0,
        feature_cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip
    with count_forward_passes() as counter:
        made = ErrorReport.from_cv(classifier, X, y, cv=2)
    return made, counter


def test_a_fine_tuned_network_has_maps_and_rows_from_stored_activations(tuned_report):
    made, counter = tuned_report
    assert counter.computed == 60
    assert made._findings.rows.is_of_images
    assert made._findings.rows.values.shape[0] == 60
    assert made.html().count('class="overlay"') == min(12, int((made.y_true != made.y_pred).sum()))
    assert set(WRONG) <= {issue.position for issue in made.label_issues}


def test_a_thousand_pictures_at_most_and_those_that_are_wrong_among_them(colours, pipeline):
    X, y = colours
    made = ErrorReport.from_cv(pipeline, X, y, cv=3, max_pictures=5)
    images = data_of(made.html())["images"]
    assert len(images) == 5
    assert set(WRONG) <= {image[0] for image in images}
    assert "55 images are not on the map" in made.html()


# the page


def test_the_page_names_no_other_address(report):
    page = report.html()
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.findall(r"https?://|url\(|@import", page)


def test_each_image_is_in_the_data_of_the_page(report):
    data = data_of(report.html())
    assert data["classes"] == ["blue", "green", "red"]
    assert [image[0] for image in data["images"]] == list(range(60))
    labels = [data["classes"][image[4]] for image in data["images"]]
    assert labels == report.y_true.tolist()


def test_the_cells_hold_the_confusion_matrix(report):
    cells = re.findall(r'data-label="(\d)" data-predicted="(\d)" data-n="(\d+)"', report.html())
    found = np.zeros((3, 3), dtype=int)
    for label, predicted, n in cells:
        found[int(label), int(predicted)] = int(n)
    expected = sklearn.metrics.confusion_matrix(report.y_true, report.y_pred)
    np.testing.assert_array_equal(found, expected)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the texts of those that are asked for."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_hostile_names_make_no_element_and_no_attribute(hostile, pipeline):
    X, y = hostile
    harmless = np.array(list("abc"))[np.unique(y, return_inverse=True)[1]]  # in this order
    files = [path.encode() and Image.open(path) for path in X]
    for image in files:
        image.load()
        image.filename = "harmless.png"
    made = [
        Elements(
            ErrorReport.from_cv(
                pipeline, images, labels, cv=2, title=title, map_method="pca"
            ).html()
        ).found
        for images, labels, title in ((X, y, "<b>'\"</b>"), (files, harmless, "title"))
    ]
    # the same elements with the same attributes, whatever the names
    kinds = [[(tag, sorted(attributes)) for tag, attributes in found] for found in made]
    wbr = ("wbr", [])  # after the folders of a path
    assert [kind for kind in kinds[0] if kind != wbr] == [kind for kind in kinds[1] if kind != wbr]
    for tag, attributes in made[0]:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)
    assert any("javascript:" in attributes.get("alt", "") for _, attributes in made[0])


def test_of_many_classes_those_with_errors_are_in_the_matrix(colours):
    X = np.concatenate([colours[0]] * 2)
    y = np.arange(120) % 24
    proba = np.eye(24)[y]
    proba[[0, 24]] = np.eye(24)[[5, 5]]
    page = ErrorReport.from_predictions(X, y, proba).html()
    assert len(re.findall(r"<thead><tr><td class=\"corner\">", page)) == 1
    assert len(re.findall(r'<th scope="col"><span title=', page)) == 20
    assert "4 others are left out here" in page
    assert 'data-label="0" data-predicted="5" data-n="2"' in page


def test_of_few_images_it_is_not_said_that_they_are_alike(colours):
    X, y = colours[0][:30], colours[1][:30]
    dark = (X * np.linspace(0.2, 1, 30)[:, None, None, None]).astype(np.uint8)
    proba = np.full((30, 3), 1 / 3)
    assert "Too few images" in ErrorReport.from_predictions(dark, y, proba).html()
    assert "About the same" not in ErrorReport.from_predictions(dark, y, proba).html()


def test_a_report_without_errors_says_so(colours):
    X, y = colours
    k = np.unique(y, return_inverse=True)[1]
    page = ErrorReport.from_predictions(X, k, np.eye(3)[k] * 0.94 + 0.02).html()
    assert "No image is predicted wrong" in page
    assert "No label looks wrong" in page


def test_rows_of_numbers_are_read_as_the_estimator_reads_them(cache):
    digits = sklearn.datasets.load_digits(n_class=2)
    network = PretrainedFeatureTransformer(
        "mini", image_size=32, image_shape=(8, 8), pixel_range=(0, 16), feature_cache=cache
    )
    pipeline = make_pipeline(network, LogisticRegression(max_iter=1000))
    made = ErrorReport.from_cv(pipeline, digits.data[:40], digits.target[:40], cv=2)
    assert (made.to_frame()["width"] == 8).all()
    assert "image/png" in made.html()


def test_images_of_a_table_are_named(colours, pipeline, hostile):
    import pandas
    from sklearn.compose import make_column_transformer

    paths, y = hostile
    X = pandas.DataFrame({"path": paths, "size": np.arange(60.0)})
    columns = make_column_transformer((pipeline.steps[0][1], ["path"]), ("passthrough", ["size"]))
    model = make_pipeline(columns, LogisticRegression(C=0.01, max_iter=1000))
    made = ErrorReport.from_cv(model, X, y, cv=2, images=X["path"])
    assert made._findings.rows.is_of_images
    assert made.to_frame()["source"].tolist() == paths.tolist()
    with pytest.raises(ValueError, match="2 columns"):
        ErrorReport.from_cv(model, X, y, cv=2)


def test_an_image_that_can_not_be_read_has_no_picture(hostile, pipeline):
    X, y = list(hostile[0]), hostile[1]
    X[5] = b"no image"
    imputed = make_pipeline(
        pipeline.steps[0][1].set_params(on_error="nan"), SimpleImputer(), pipeline.steps[1][1]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnreadableImageWarning)
        made = ErrorReport.from_cv(imputed, X, y, cv=2)
    assert np.flatnonzero(made.to_frame()["width"].isna()).tolist() == [5]
    assert np.flatnonzero(np.isnan(made.label_issues.scores)).tolist() == [5]
    assert data_of(made.html())["images"][5][1] is None


# groups, weights, and what is not allowed


def test_groups_stay_in_one_fold(colours, pipeline):
    X, y = colours
    groups = np.arange(60) // 6
    made = ErrorReport.from_cv(pipeline, X, y, cv=3, groups=groups)
    for group in range(10):
        assert len(set(made.folds[groups == group].tolist())) == 1
    by_hand = ErrorReport.from_cv(pipeline, X, y, cv=GroupKFold(3), groups=groups)
    assert len(set(by_hand.folds[groups == 0].tolist())) == 1


def test_groups_among_params_are_groups(colours, pipeline):
    X, y = colours
    groups = np.arange(60) // 6
    made = ErrorReport.from_cv(pipeline, X, y, cv=3, params={"groups": groups}, map_method="pca")
    expected = ErrorReport.from_cv(pipeline, X, y, cv=3, groups=groups, map_method="pca")
    np.testing.assert_array_equal(made.folds, expected.folds)
    assert made.accuracy == expected.accuracy
    with pytest.raises(ValueError, match="not both"):
        ErrorReport.from_cv(pipeline, X, y, groups=groups, params={"groups": groups})


def test_transformers_may_give_frames_of_pandas(report, colours, pipeline):
    with sklearn.config_context(transform_output="pandas"):
        made = ErrorReport.from_cv(pipeline, *colours, cv=3, map_method="pca", activation_maps=1)
    np.testing.assert_allclose(made.probabilities, report.probabilities, rtol=1e-6)
    assert made.html().count('class="overlay"') == 1


@pytest.mark.parametrize("routing", [False, True])
def test_weights_and_groups_go_where_they_are_asked_for(colours, store, routing):
    X, y = colours
    weights = np.where(np.arange(60) < 30, 1.0, 0.0)
    network = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=store)
    params = {"sample_weight": weights} if routing else {"linear__sample_weight": weights}
    with sklearn.config_context(enable_metadata_routing=routing):
        linear = LogisticRegression(C=0.01, max_iter=1000)
        if routing:
            linear.set_fit_request(sample_weight=True)
        pipeline = sklearn.pipeline.Pipeline([("rows", network), ("linear", linear)])
        groups = np.arange(60) // 6
        made = ErrorReport.from_cv(pipeline, X, y, cv=3, groups=groups, params=params)
    rows = network.fit_transform(X)
    first = made.folds != 0
    by_hand = LogisticRegression(C=0.01, max_iter=1000).fit(
        rows[first], y[first], sample_weight=weights[first]
    )
    np.testing.assert_allclose(
        made.probabilities[~first], by_hand.predict_proba(rows[~first]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (LinearRegression(), "LinearRegression is none"),
        (RidgeClassifier(), "wrap this one in sklearn.calibration.CalibratedClassifierCV"),
        (LogisticRegression, "got the class LogisticRegression"),
    ],
)
def test_estimators_without_probabilities_are_refused(colours, estimator, words):
    with pytest.raises(TypeError, match=words):
        ErrorReport.from_cv(estimator, *colours)
    with pytest.raises(TypeError, match=words):
        ErrorReport.from_estimator(estimator, *colours)


def test_targets_that_are_no_classes_are_refused(colours, pipeline):
    X, y = colours
    with pytest.raises(ValueError, match="make a report for each column of y"):
        ErrorReport.from_cv(pipeline, X, np.eye(60, 3, dtype=int))
    with pytest.raises(ValueError, match="got continuous targets"):
        ErrorReport.from_cv(pipeline, X, np.linspace(0, 1.5, 60))
    with pytest.raises(ValueError, match="alone; give images of two"):
        ErrorReport.from_cv(pipeline, X, np.zeros(60, dtype=int))
    fitted = pipeline.fit(X, y)
    with pytest.raises(ValueError, match=r"y has the classes \['pink'\]"):
        ErrorReport.from_estimator(fitted, X[:3], np.array(["red", "pink", "blue"]))


class NeverFitted(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise AssertionError("fitted before the images were checked")

    def predict_proba(self, X):
        raise NotImplementedError


def test_images_and_groups_are_checked_before_the_first_fit(colours):
    X, y = colours
    with pytest.raises(TypeError, match="must hold several images, got one str"):
        ErrorReport.from_cv(NeverFitted(), "photographs", y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[60, 2\]"):
        ErrorReport.from_cv(NeverFitted(), X, y, groups=[1, 2])
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[59, 60\]"):
        ErrorReport.from_cv(NeverFitted(), X, y, images=X[:59])
    with pytest.raises(TypeError, match="no cell of X is an image"):
        ErrorReport.from_cv(NeverFitted(), np.zeros((60, 2)), y, images=list(range(60)))


def test_an_error_lists_every_image_that_can_not_be_read_by_its_position_in_X(hostile, pipeline):
    X, y = list(hostile[0]), hostile[1]
    X[5] = X[58] = b"no image"
    with pytest.raises(ImageReadError) as caught:
        ErrorReport.from_cv(pipeline, X, y, cv=3)
    assert [failure.position for failure in caught.value.failures] == [5, 58]
    assert caught.value.n_images == 60


def test_folds_that_do_not_test_each_image_once_are_refused(colours, pipeline):
    with pytest.raises(ValueError, match="must test each image once"):
        ErrorReport.from_cv(pipeline, *colours, cv=ShuffleSplit(2, random_state=0))


def test_probabilities_that_are_none_are_refused(colours):
    X, y = colours
    with pytest.raises(ValueError, match=r"\(60, 3\), got \(60, 2\)"):
        ErrorReport.from_predictions(X, y, np.full((60, 2), 0.5))
    with pytest.raises(ValueError, match="each row 0 or more, and 1 in the sum"):
        ErrorReport.from_predictions(X, y, np.ones((60, 3)))
    with pytest.raises(ValueError, match="classes must differ"):
        ErrorReport.from_predictions(X, y, np.full((60, 2), 0.5), classes=["red", "red"])
    with pytest.raises(ValueError, match="a row for each of the 60 images"):
        ErrorReport.from_predictions(X, y, np.full((60, 3), 1 / 3), rows=np.zeros((59, 2)))


def test_a_class_that_a_fold_has_not_seen_has_the_probability_0(colours, pipeline):
    X, y = colours
    y = y.copy()
    y[:20] = "first"
    made = ErrorReport.from_cv(pipeline, X, y, cv=KFold(3))
    first = made.classes.tolist().index("first")
    assert (made.probabilities[:20, first] == 0).all()
    assert np.isfinite(made.losses).all()
    assert (made.y_pred[:20] != "first").all()
