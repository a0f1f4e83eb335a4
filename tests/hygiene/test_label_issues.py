import numpy as np
import pytest
import sklearn
from PIL import Image

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.exceptions import UnreadableImageWarning
from sktransfer.hygiene import label_issues
from sktransfer.hygiene._label_issues import issues_of
from sktransfer.hygiene._reading import images_of

WRONG = [3, 17, 40]


@pytest.fixture(scope="module")
def colours():
    """Return 60 images of three colours, and their labels, three of which are wrong."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = rng.integers(0, 60, (60, 32, 32, 3), dtype=np.uint8)
    X[np.arange(60), :, :, y] += 150
    labels = np.array(["red", "green", "blue"])[y]
    labels[WRONG] = np.array(["green", "blue", "red"])[y[WRONG]]
    return X, labels


def test_wrong_labels_are_listed_with_the_right_ones_and_no_other(colours, cache):
    X, y = colours
    issues = label_issues(X, y, feature_cache=cache)
    assert sorted(issue.position for issue in issues) == WRONG
    for issue in issues:
        right = ["red", "green", "blue"][issue.position % 3]
        assert (issue.label, issue.suggested) == (y[issue.position], right)
        assert issue.neighbours < 0.5
        assert issue.score == pytest.approx((issue.probability + issue.neighbours) / 2)
    assert [issue.score for issue in issues] == sorted(issues.scores)[:3]
    assert "60 images: 3 labels are likely wrong" in repr(issues)


def test_each_image_passes_the_network_once_and_then_not_at_all(colours, cache):
    X, y = colours
    with count_forward_passes() as counter:
        first = label_issues(X, y, feature_cache=cache)
        assert counter.computed == len(X)
        second = label_issues(X, y, feature_cache=cache)
        assert counter.computed == len(X)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_the_network_sees_images_of_the_size_that_is_asked_for(colours, cache):
    X, y = colours
    with count_forward_passes() as counter:
        label_issues(X, y, image_size=48, feature_cache=cache)
        PretrainedFeatureTransformer("mini", image_size=48, feature_cache=cache).fit_transform(X)
    assert counter.computed == len(X)
    with pytest.raises(ValueError, match="image_size"):
        label_issues(X, y, image_size=3)


def test_labels_of_any_kind_come_back_as_they_are(colours, cache):
    X, y = colours
    numbers = np.unique(y, return_inverse=True)[1]
    for labels in (numbers, numbers.tolist(), y.astype(object)):
        issues = label_issues(X, labels, feature_cache=cache)
        assert sorted(issue.position for issue in issues) == WRONG
        assert all(issue.label == labels[issue.position] for issue in issues)


def test_images_of_a_group_do_not_vote_for_one_another(colours, cache):
    X, y = colours
    # ten equal images with an equal wrong label agree with one another
    X, y = np.concatenate([X, np.repeat(X[3:4], 12, axis=0)]), np.append(y, [y[3]] * 12)
    groups = np.append(np.arange(60), [3] * 12)
    alone = label_issues(X, y, feature_cache=cache)
    grouped = label_issues(X, y, groups=groups, feature_cache=cache)
    assert 3 not in [issue.position for issue in alone]
    assert {3, *range(60, 72)} <= {issue.position for issue in grouped}


def test_files_that_can_not_be_read_are_named_and_not_listed(colours, cache, tmp_path, encode):
    X, y = colours
    files = [encode(Image.fromarray(image)) for image in X]
    files[5] = b"no image"
    with pytest.warns(UnreadableImageWarning, match=r"X\[5\]"):
        issues = label_issues(files, y, feature_cache=cache)
    assert sorted(issue.position for issue in issues) == WRONG
    assert np.flatnonzero(np.isnan(issues.scores)).tolist() == [5]
    splits = [(np.arange(30, 60), np.arange(30)), (np.arange(30), np.arange(30, 60))]
    with (
        pytest.warns(UnreadableImageWarning),
        pytest.raises(ValueError, match="cv holds positions of all images, and 1 can't be read"),
    ):
        label_issues(files, y, cv=splits, feature_cache=cache)


def test_a_table_of_the_issues_has_a_column_for_each_attribute(colours, cache):
    X, y = colours
    frame = label_issues(X, y, feature_cache=cache).to_frame()
    assert list(frame.columns) == [
        "position",
        "source",
        "label",
        "suggested",
        "score",
        "probability",
        "neighbours",
    ]
    assert len(frame) == 3


def test_a_rare_class_is_no_reason_to_stop(colours, cache):
    X, y = colours
    y = y.astype(object)
    y[[0, 6]] = "rare"
    issues = label_issues(X, y, feature_cache=cache)
    assert set(WRONG) <= {issue.position for issue in issues}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda y: y[:-1], ValueError, "inconsistent numbers of samples"),
        (lambda y: np.append(y[:-1], "rare"), ValueError, r"fewer than two images.*\['rare'\]"),
        (lambda y: np.full(len(y), "red"), ValueError, "y has the class 'red' alone"),
        (lambda y: np.linspace(0, 1, len(y)), ValueError, "must hold the labels of classes"),
        (lambda y: np.eye(3, dtype=int)[np.arange(len(y)) % 3], ValueError, "1d array"),
    ],
)
def test_labels_that_can_not_be_examined_are_refused(colours, cache, change, error, message):
    X, y = colours
    with pytest.raises(error, match=message):
        label_issues(X, change(y), feature_cache=cache)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("backbone", None), ("cv", "five"), ("n_jobs", 0.5), ("groups", 3), ("image_shape", "8")],
)
def test_a_wrong_parameter_is_named(colours, cache, parameter, value):
    X, y = colours
    with pytest.raises((TypeError, ValueError), match=parameter):
        label_issues(X, y, **{"feature_cache": cache, parameter: value})


def test_frames_of_pandas_are_no_obstacle(colours, cache):
    with sklearn.config_context(transform_output="pandas"):
        issues = label_issues(*colours, feature_cache=cache)
    assert sorted(issue.position for issue in issues) == WRONG


def test_a_class_with_less_support_than_the_label_is_not_suggested():
    images = images_of(np.zeros((6, 8, 8, 3), dtype=np.uint8), None, None)
    labels = np.array([0, 0, 0, 0, 1, 2])
    names = np.array(["common", "other", "rare"])
    # the images of the rare class are not known as such: its threshold is near 0
    support = np.array(
        [[0.9, 0.0, 0.1], [0.9, 0.0, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0, 0.6, 0.4],
         [0.9, 0.05, 0.05]]
    )  # fmt: skip
    (issue, last) = issues_of(images, names, labels, np.stack([support] * 2))
    assert (issue.position, issue.label, issue.suggested) == (5, "rare", "common")
    assert (last.position, last.label, last.suggested) == (3, "common", "other")


def test_labels_with_the_next_lowest_scores_are_listed_where_more_are_asked_for():
    labels = np.array([0, 0, 0, 1, 1, 1])
    support = np.array([[0.9, 0.1], [0.3, 0.7], [0.48, 0.52], [0.4, 0.6], [0.1, 0.9], [0.0, 1.0]])
    images = images_of(np.zeros((6, 8, 8, 3), dtype=np.uint8), None, None)
    names = np.array(["a", "b"])
    few, more = (issues_of(images, names, labels, np.stack([support] * 2), n) for n in (0, 5))
    assert [issue.position for issue in few] == []
    assert [issue.position for issue in more] == [1, 2]  # the others have the most support
    assert [issue.suggested for issue in more] == ["b", "b"]
    np.testing.assert_array_equal(few.scores, more.scores)
