"""The recipes: what parameters are that are left to them."""

import pytest

from sktransfer.training._recipe import RECIPES, auto_depth, filled_in, is_augmented

AUTO = dict.fromkeys(("augment_views", "dropout", "label_smoothing", "max_grad_norm"), "auto")


@pytest.mark.parametrize(
    ("share", "depth"), [(0.0, 3), (0.39, 3), (0.4, 3), (0.69, 3), (0.7, 2), (0.9, 1), (1.0, 0)]
)
def test_the_depth_is_the_least_whose_stages_take_at_most_the_share(share, depth):
    assert auto_depth([10, 20, 30, 40], share) == depth


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_last_stage_trains_whatever_it_takes(recipe):
    assert auto_depth([1, 99], recipe.trained_share) in (0, 1)
    assert auto_depth([5], recipe.trained_share) == 0


def test_the_recipes_train_more_and_more_of_the_network():
    shares = [RECIPES[name].trained_share for name in ("fast", "default", "thorough")]
    steps = [RECIPES[name].n_steps for name in ("fast", "default", "thorough")]
    assert shares == sorted(set(shares))
    assert steps == sorted(steps)


def test_a_head_alone_is_fitted_as_it_is():
    recipe = RECIPES["default"]
    assert not is_augmented(recipe, 4, 4)
    filled = filled_in(AUTO, recipe, 4, 4, None)
    assert filled == {
        "augment_views": None,
        "dropout": 0.0,
        "label_smoothing": 0.0,
        "max_grad_norm": None,
    }


def test_views_are_stored_only_where_stages_are_frozen():
    recipe = RECIPES["default"]
    assert filled_in(AUTO, recipe, 2, 4, "light")["augment_views"] == 8
    assert filled_in(AUTO, recipe, 0, 4, "light")["augment_views"] is None
    assert filled_in(AUTO, recipe, 2, 4, None)["augment_views"] is None


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_what_is_given_stays_as_it_is(recipe):
    given = {"augment_views": 3, "dropout": 0.7, "label_smoothing": 0.0, "max_grad_norm": None}
    assert filled_in(given, recipe, 2, 4, "light") == given
