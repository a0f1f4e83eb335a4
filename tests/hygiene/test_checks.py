import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sktransfer.hygiene import check_images


def problems_of(X, **options):
    checks = check_images(X, **options)
    found = {check.position: set(check.problems) for check in checks}
    return [found.get(position, set()) for position in range(checks.n_images)]


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_an_ordinary_picture_has_no_problem_whichever_way_it_comes(scene, encode, tmp_path):
    image = scene(0)
    image.save(tmp_path / "image.png")
    X = [
        image,
        np.asarray(image),
        encode(image),
        str(tmp_path / "image.png"),
        encode(image, "WEBP"),
    ]
    assert problems_of(X) == [set()] * 5


def test_every_problem_is_found(scene, encode):
    plot = Image.new("RGB", (80, 60), "white")
    plot.paste(scene(1, (30, 30)), (5, 5))
    X = [
        scene(0),
        b"\xff\xd8\xff damaged",
        scene(0, (40, 31)),
        np.full((40, 40, 3), 128, dtype=np.uint8),
        scene(0, (200, 40)),
        encode(scene(0), "JPEG", exif=turned(6)),
        encode(scene(0).convert("L"), "JPEG"),
        plot,
    ]
    assert problems_of(X) == [
        set(),
        {"unreadable"},
        {"tiny"},
        {"blank", "grey", "graphic"},
        {"odd_aspect"},
        {"rotated"},
        {"grey"},
        {"graphic"},
    ]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_file_that_exif_turns_is_rotated_and_its_sides_are_upright(
    scene, encode, format, orientation
):
    (check,) = check_images([encode(scene(0), format, exif=turned(orientation))])
    assert check.problems == ("rotated",)
    assert (check.width, check.height) == ((96, 64) if orientation < 5 else (64, 96))


def test_an_opened_file_that_exif_turns_is_rotated(scene, tmp_path):
    scene(0).save(tmp_path / "image.jpg", exif=turned(3))
    with Image.open(tmp_path / "image.jpg") as image:
        assert problems_of([image]) == [{"rotated"}]


def test_an_upright_orientation_is_no_problem(scene, encode):
    assert problems_of([encode(scene(0), "JPEG", exif=turned(1))]) == [set()]


def test_noise_of_a_sensor_on_an_even_ground_is_blank_and_a_faint_picture_is_not(scene):
    noise = np.random.default_rng(0).normal(128, 3, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    faint = (np.asarray(scene(0)) // 5 + 100).astype(np.uint8)
    blank, picture = problems_of([noise, faint])
    assert "blank" in blank
    assert "blank" not in picture


def test_a_grey_picture_saved_in_colour_is_grey(scene, encode):
    image = scene(0).convert("L").convert("RGB")
    assert problems_of([encode(image, "JPEG", quality=50)]) == [{"grey"}]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("min_side", 65, "tiny"),
        ("min_contrast", 255, "blank"),
        ("max_aspect", 1.4, "odd_aspect"),
        ("min_colour", 255, "grey"),
        ("max_one_colour", 0, "graphic"),
    ],
)
def test_every_threshold_is_a_parameter(scene, option, value, problem):
    assert problems_of([scene(0)], **{option: value}) == [{problem}]


def test_one_bad_file_never_stops_it_and_says_why(scene, tmp_path):
    (tmp_path / "page.jpg").write_text("<!doctype html>")
    X = [scene(0), str(tmp_path / "none.jpg"), str(tmp_path / "page.jpg"), str(tmp_path), None, b""]
    checks = check_images(X)
    assert [check.position for check in checks] == [1, 2, 3, 4, 5]
    assert all(check.problems == ("unreadable",) for check in checks)
    assert checks[0].reason == "no such file"
    assert "web page" in checks[1].reason
    assert checks[1].source == str(tmp_path / "page.jpg")
    assert checks[1].width is None


def test_a_large_image_is_measured_on_a_grid(scene):
    large = scene(0, (3000, 2000))
    (check,) = check_images([large], max_aspect=1)
    small = check_images([scene(0, (300, 200))], max_aspect=1)[0]
    assert check.contrast == pytest.approx(small.contrast, rel=0.02)


def test_counts_and_having_go_by_problem(scene):
    X = [scene(0), scene(1, (20, 20)), np.zeros((20, 20), np.uint8), b"no"]
    checks = check_images(X)
    assert checks.counts["tiny"] == 2
    assert checks.counts["rotated"] == 0
    assert [check.position for check in checks.having("blank", "unreadable")] == [2, 3]
    with pytest.raises(ValueError, match=r"problems must be of unreadable, .*got 'ugly'"):
        checks.having("ugly")


def test_it_prints_as_a_table_and_becomes_a_frame(scene):
    checks = check_images([scene(0), b"no", scene(1, (200, 20))])
    lines = repr(checks).splitlines()
    assert lines[0] == "2 of 3 images: 1 unreadable, 1 tiny, 1 odd_aspect"
    assert lines[1].split()[:3] == ["position", "source", "problems"]
    assert len(lines) == 4
    frame = checks.to_frame()
    assert frame["position"].tolist() == [1, 2]
    assert frame["problems"].tolist() == [("unreadable",), ("tiny", "odd_aspect")]


def test_a_long_table_prints_its_beginning(scene):
    text = repr(check_images([scene(0), *[b"no"] * 50]))
    assert len(text.splitlines()) == 23
    assert text.endswith("... and 30 more")


def test_a_clean_set_prints_one_line_and_gives_an_empty_frame(scene):
    checks = check_images([scene(0)])
    assert repr(checks) == "0 of 1 images: nothing found"
    assert checks.to_frame().empty


def test_without_pandas_the_error_names_the_extra(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"sktransfer\[hygiene\]"):
        check_images([b"no", scene(0)]).to_frame()


def test_flattened_rows_are_read_with_image_shape():
    rows = np.random.default_rng(0).integers(0, 17, (3, 40 * 40)).astype(float)
    found = problems_of(rows, image_shape=(40, 40), pixel_range=(0, 16))
    assert found == [{"grey"}] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_side": -1}, "'min_side' parameter of check_images"),
        ({"max_aspect": 0.5}, "'max_aspect' parameter of check_images"),
        ({"max_one_colour": 2}, "'max_one_colour' parameter of check_images"),
        ({"pixel_range": "wide"}, "'pixel_range' parameter of check_images"),
    ],
)
def test_a_wrong_parameter_is_an_error_that_names_it(scene, options, message):
    with pytest.raises(ValueError, match=message):
        check_images([scene(0)], **options)


@settings(max_examples=50, deadline=None)
@given(data=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_any_bytes_give_a_table(data):
    heads = [b"", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n"]
    X = [head + tail for head, tail in zip(heads * 2, data, strict=False)]
    assert check_images(X).n_images == len(X)


def test_the_placeholder_among_the_ants_is_found_as_no_photograph(hymenoptera):
    paths, _ = hymenoptera["train"]
    checks = check_images(paths)
    graphics = {check.source.rsplit("/", 1)[-1]: check for check in checks.having("graphic")}
    # the other is an ant cut out, on pure white
    assert set(graphics) == {"imageNotFound.gif", "175998972.jpg"}
    assert graphics["imageNotFound.gif"].one_colour > 0.9
    assert len(checks) < 0.02 * len(paths)
