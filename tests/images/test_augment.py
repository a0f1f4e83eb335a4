import math
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from sktransfer._spec import InputSpec
from sktransfer.images._augment import (
    MIRRORED,
    AugmentedView,
    _turn,
    draw_crop,
    light,
    make_augmentation,
)
from sktransfer.images._custom_transform import library_versions
from sktransfer.images._preprocess import preprocess, resized_shape

PLAIN = {"mean": (0, 0, 0), "std": (1, 1, 1)}
SPEC = InputSpec(32, 36, **PLAIN)
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def draws_from_everywhere(image):
    """Draw from Python's, NumPy's and torch's global generators."""
    shifts = random.randrange(30), np.random.randint(30)
    return (image.roll(shifts, (1, 2)) * torch.rand(1)).to(torch.uint8)


KINDS = {
    "crop": "crop",
    "light": "light",
    "medium": "medium",
    "trivial": "trivial",
    "torchvision": v2.Compose([v2.RandomResizedCrop(32), v2.ColorJitter(0.5, 0.5, 0.5, 0.1)]),
    "own": draws_from_everywhere,
}


@pytest.fixture(params=KINDS)
def augmentation(request):
    """Return each kind of augmentation in turn."""
    return make_augmentation(KINDS[request.param])


def _views(augmentation, n, pixels=PIXELS, spec=SPEC):
    return [
        AugmentedView(augmentation, number, 0).pixels(pixels, spec, b"one") for number in range(n)
    ]


def _states():
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tobytes(), *rest), torch.get_rng_state().tolist()


def test_a_view_is_the_same_again(augmentation):
    first = _views(augmentation, 6)
    random.seed(5)
    np.random.seed(5)
    backwards = [
        AugmentedView(augmentation, number, 0).pixels(PIXELS, SPEC, b"one")
        for number in reversed(range(6))
    ]
    for view, again in zip(first, reversed(backwards), strict=True):
        assert view.dtype == torch.uint8
        assert view.shape == (3, 32, 32)
        assert torch.equal(view, again)


def test_views_differ_by_number_seed_and_image(augmentation):
    views = [
        AugmentedView(augmentation, number, seed).pixels(PIXELS, SPEC, digest)
        for number in (0, 1)
        for seed in (0, 1)
        for digest in (b"one", b"two")
    ]
    assert len({view.numpy().tobytes() for view in views}) == len(views)


def test_global_random_states_stay_as_they_were(augmentation):
    before = _states()
    _views(augmentation, 4)
    assert _states() == before


def test_threads_draw_the_same_views_and_leave_the_global_states(augmentation):
    expected, before = _views(augmentation, 40), _states()
    with ThreadPoolExecutor(4) as pool:
        futures = [
            pool.submit(AugmentedView(augmentation, number, 0).pixels, PIXELS, SPEC, b"one")
            for number in range(40)
        ]
        views = [future.result() for future in futures]
    assert all(torch.equal(*pair) for pair in zip(views, expected, strict=True))
    assert _states() == before


def test_views_in_threads_and_dropout_in_training_do_not_disturb_each_other(augmentation):
    expected, beside = _views(augmentation, 40), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(AugmentedView(augmentation, number, 0).pixels, PIXELS, SPEC, b"one")
                for number in range(40)
            ]
            while len(beside) < 50 or not all(future.done() for future in futures):
                beside.append(torch.rand(5))
            views = [future.result() for future in futures]
        torch.manual_seed(0)
        alone = [torch.rand(5) for _ in beside]
    assert all(torch.equal(*pair) for pair in zip(beside, alone, strict=True))
    assert all(torch.equal(*pair) for pair in zip(views, expected, strict=True))


def test_a_pickled_view_draws_the_same(augmentation):
    view = AugmentedView(augmentation, 3, 1)
    again = pickle.loads(pickle.dumps(view))
    assert again.key() == view.key()
    assert torch.equal(again.pixels(PIXELS, SPEC, b"x"), view.pixels(PIXELS, SPEC, b"x"))


def test_the_key_states_augmentation_number_and_seed():
    kinds = ["crop", "light", "medium", "trivial", v2.RandomVerticalFlip()]
    views = [
        AugmentedView(make_augmentation(kind), number, seed)
        for kind in kinds
        for number in (0, 1, 11)
        for seed in (0, 1, 11)
    ]
    assert len({view.key() for view in views}) == len(views)
    assert (
        AugmentedView(make_augmentation("light"), np.int64(2), np.uint32(7)).key()
        == f"light:2 {library_versions()}|2|7"
    )
    assert AugmentedView(make_augmentation(draws_from_everywhere), 0, 0).key() is None


def test_a_seed_of_any_integer_type_draws_the_same():
    light = make_augmentation("light")
    views = [
        AugmentedView(light, kind(2), kind(7)).pixels(PIXELS, SPEC, b"x")
        for kind in (int, np.int64, np.uint8)
    ]
    assert torch.equal(views[0], views[1])
    assert torch.equal(views[0], views[2])


def test_a_crop_is_a_light_view_that_is_never_mirrored():
    crops, lights = (_views(make_augmentation(name), 40) for name in ("crop", "light"))
    is_mirrored = [not torch.equal(*pair) for pair in zip(crops, lights, strict=True)]
    assert 10 <= sum(is_mirrored) <= 30
    for one, other in zip(crops, lights, strict=True):
        assert torch.equal(one, other) or torch.equal(one, other.flip(-1))


def test_the_mirrored_view_is_the_square_of_the_evaluation_turned_round():
    view = AugmentedView(MIRRORED, 0, 0)
    assert torch.equal(view.pixels(PIXELS, SPEC, b"x"), preprocess(PIXELS, SPEC).flip(-1))
    assert view.key() == "mirrored:2|0|0"


def test_no_augmentation_is_none():
    assert make_augmentation(None) is None


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        ("heavy", "got 'heavy'"),
        (3, "got 3"),
        (True, "got True"),
        (["light"], r"got a list, pass v2.Compose\(\[...\]\)"),
        (v2.RandomHorizontalFlip, r"got the class RandomHorizontalFlip, pass RandomHorizontalFlip"),
    ],
)
def test_an_error_says_what_came_and_what_is_allowed(augment, said):
    with pytest.raises(ValueError, match=rf"^augment must be 'auto', None, 'crop', .*{said}"):
        make_augmentation(augment)


specs = st.builds(
    lambda size, extra, crop: InputSpec(size, size + extra, crop=crop, **PLAIN),
    st.integers(1, 40),
    st.integers(-5, 10),
    st.sampled_from(["center", "squash"]),
).filter(lambda spec: spec.resize > 0)
sides = st.integers(1, 120)


@given(height=sides, width=sides, spec=specs, seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_crop_lies_in_the_image(height, width, spec, seed):
    top, left, rows, columns = draw_crop(height, width, spec, Random(seed))
    assert 0 <= top < top + rows <= height
    assert 0 <= left < left + columns <= width


@pytest.mark.parametrize("name", ["crop", "light", "medium", "trivial"])
@given(height=sides, width=sides, spec=specs, seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_any_image_becomes_the_network_s_square(name, height, width, spec, seed):
    pixels = np.full((height, width, 3), 100, dtype=np.uint8)
    pixels.setflags(write=False)
    view = AugmentedView(make_augmentation(name), 0, seed).pixels(pixels, spec, b"x")
    assert view.shape == (3, spec.size, spec.size)
    assert view.dtype == torch.uint8


def test_objects_are_as_large_as_in_the_evaluation_on_average():
    spec = InputSpec(224, 256, **PLAIN)
    rng = Random(0)
    rows, columns = resized_shape(500, 750, spec)
    logs = []
    for _ in range(2000):
        _, _, height, width = draw_crop(500, 750, spec, rng)
        area = (height * rows / 500) * (width * columns / 750)
        logs.append(math.log2(spec.size / math.sqrt(area)))
    # the image's border makes the largest crops a little smaller
    assert np.mean(logs) == pytest.approx(0, abs=0.06)
    assert min(logs) > -0.27
    assert max(logs) < 0.27


class Middle(Random):
    """Draws the middle of every range, and no flip."""

    def random(self):
        return 0.5


def _gradient(height, width):
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / width * 9), np.cos(y / height * 7), np.sin((x + y) / (height + width) * 9)]
    return np.rint(np.stack(waves, axis=2) * 100 + 120).astype(np.uint8)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (224, 224), (90, 500), (700, 100)])
@pytest.mark.parametrize("crop", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_view_in_the_middle_of_all_is_the_evaluation_s(shape, crop, interpolation):
    spec = InputSpec(96, 110, crop=crop, interpolation=interpolation, **PLAIN)
    pixels = _gradient(*shape)
    view = light(pixels, spec, Middle())
    difference = (view.float() - preprocess(pixels, spec).float()).abs()
    assert difference.mean() < 1


class Mirrored(Middle):
    """Draws the middle of every range; the fifth draw of light mirrors."""

    def __init__(self):
        self.n_draws = 0

    def random(self):
        self.n_draws += 1
        return 0.4999 if self.n_draws == 5 else 0.5


def test_half_of_the_light_views_are_mirrored():
    pixels = _gradient(300, 400)
    mirrored = light(pixels, SPEC, Mirrored())
    assert torch.equal(mirrored.flip(-1), light(pixels, SPEC, Middle()))
    ramp = np.repeat(np.arange(80, dtype=np.uint8), 3).reshape(1, 80, 3).repeat(60, axis=0)
    views = _views(make_augmentation("light"), 100, ramp)
    assert 30 < sum(bool(view[0, 0, 0] > view[0, 0, -1]) for view in views) < 70


def test_turning_leaves_no_empty_corners():
    white = torch.full((3, 50, 50), 255, dtype=torch.uint8)
    for degrees in (-10, -5, 0, 5, 10):
        assert _turn(white, degrees).min() >= 254


def test_turning_turns_by_the_angle():
    half = torch.zeros((3, 101, 101), dtype=torch.uint8)
    half[:, :, 50:] = 255
    assert torch.equal(_turn(half, 0), half)
    edges = (_turn(half, 10)[0] > 127).int().argmax(dim=1)
    assert edges[90] - edges[10] == pytest.approx(80 * math.tan(math.radians(10)), abs=1.5)


def test_medium_changes_lighting_by_a_quarter_at_most():
    grey = np.full((60, 80, 3), 100, dtype=np.uint8)
    means = [view.float().mean().item() for view in _views(make_augmentation("medium"), 100, grey)]
    assert 79 <= min(means) < 85
    assert 118 < max(means) <= 126
    assert 15 <= sum(mean == 100 for mean in means) <= 40


@pytest.mark.parametrize("shape", [(32, 32), (36, 36), (32, 40)])
@pytest.mark.parametrize("spec", [InputSpec(32, 32, **PLAIN), SPEC])
def test_writing_to_a_view_does_not_change_the_user_s_pixels(shape, spec):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = pixels.copy()
    light(pixels, spec, Middle()).zero_()
    for view in _views(make_augmentation("light"), 20, pixels, spec):
        view.zero_()
    np.testing.assert_array_equal(pixels, before)


def test_the_crops_of_version_1_stay_what_they_are():
    # Rows of views are stored under the name "light:2": change it with these.
    spec = InputSpec(224, 256, **PLAIN)
    rng = Random(0)
    crops = [draw_crop(375, 500, spec, rng) for _ in range(3)]
    assert crops == [(13, 26, 344, 399), (29, 54, 338, 321), (52, 84, 318, 334)]
