"""Names, templates and prompts."""

import numpy as np
import pytest

from sktransfer._zero_shot_prompts import checked_templates, labels_of, prompts_of


def test_names_go_into_every_template():
    templates = ["a {} and {}", str.upper]
    prompts = prompts_of(["sea_lion", "ox"], np.array(["ox", "sea_lion"]), templates)
    assert prompts == (("a ox and ox", "OX"), ("a sea lion and sea lion", "SEA LION"))


def test_braces_in_a_name_are_kept():
    assert prompts_of({0: "a{b}"}, np.array([0]), ["the {}"]) == (("the a{b}",),)


def test_numbers_are_names_too():
    assert prompts_of([1, 2], np.array([1, 2]), ["{}"]) == (("1",), ("2",))


@pytest.mark.parametrize(
    "classes", [["b", "a"], np.array(["b", "a"]), {"b": "x", "a": "y"}, ("b", "a")]
)
def test_labels_are_sorted(classes):
    assert labels_of(classes).tolist() == ["a", "b"]


@pytest.mark.parametrize("classes", [[2, 10], np.array([10, 2]), {10: "a", 2: "b"}])
def test_labels_keep_their_kind(classes):
    assert labels_of(classes).dtype.kind == "i"
    assert labels_of(classes).tolist() == [2, 10]


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("disc", TypeError, "a sequence of labels, or a dict"),
        (3, TypeError, "a sequence of labels, or a dict"),
        (["a", 1], TypeError, "strings, or numbers of one kind"),
        ([["a"], ["b"]], TypeError, "strings, or numbers of one kind"),
        (["a", "a"], ValueError, "each label once"),
        (["a"], ValueError, "at least 2 labels"),
    ],
)
def test_what_can_be_no_label_is_an_error(classes, error, message):
    with pytest.raises(error, match=message):
        labels_of(classes)


@pytest.mark.parametrize(
    ("templates", "error", "message"),
    [
        ("many", ValueError, "'simple', 'imagenet' or a sequence"),
        ([], ValueError, "must not be empty"),
        (["a photo"], ValueError, r"must hold '\{\}'"),
        ([3], TypeError, "strings or functions"),
        (7, TypeError, "a name or a sequence"),
    ],
)
def test_what_is_no_template_is_an_error(templates, error, message):
    with pytest.raises(error, match=message):
        checked_templates(templates)


@pytest.mark.parametrize("prompts", [[], [1], 3, {"a": 1}])
def test_what_is_no_prompt_is_an_error(prompts):
    with pytest.raises(TypeError, match=r"classes\[0\] must be a name"):
        prompts_of({0: prompts}, np.array([0]), ["{}"])


def test_a_template_that_returns_no_text_is_an_error():
    with pytest.raises(TypeError, match="must return a str, got None for 'a'"):
        prompts_of(["a"], np.array(["a"]), [lambda name: None])
