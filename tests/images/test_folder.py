import os
import warnings

import numpy as np
import pytest
from PIL import Image

from sktransfer import load_image_folder
from sktransfer.exceptions import UnreadableImageWarning


@pytest.fixture
def root(tmp_path):
    for name in ("dog/2.png", "dog/10.PNG", "cat/deep/er/1.jpeg", "cat/0.tif", "bird/a.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return tmp_path


def test_paths_are_sorted_by_class_and_then_by_name(root):
    paths, labels = load_image_folder(root)
    assert [os.path.relpath(path, root) for path in paths] == [
        "bird/a.webp",
        "cat/0.tif",
        "cat/deep/er/1.jpeg",
        "dog/10.PNG",
        "dog/2.png",
    ]
    assert labels.tolist() == ["bird", "cat", "cat", "dog", "dog"]
    assert paths.dtype == object
    assert labels.dtype.kind == "U"


def test_a_str_and_a_path_give_the_same(root):
    for one, other in zip(load_image_folder(str(root)), load_image_folder(root), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "name",
    ["cat/notes.txt", "cat/film.mpg", "cat/scan.pdf", "dog/phone.heic", "dog/noending", "up.png"],
)
def test_what_is_left_out_is_named_in_one_warning(name, root):
    (root / name).write_bytes(b"")
    with pytest.warns(UnreadableImageWarning, match=os.path.basename(name)) as caught:
        paths, _ = load_image_folder(root)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert len(paths) == 5


def test_hidden_files_and_folders_are_passed_over(root):
    for name in (".DS_Store", "cat/.DS_Store", "cat/.thumbs/1.png", ".git/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_image_folder(root)[0]) == 5


def test_links_are_followed_but_never_in_a_circle(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    Image.new("RGB", (4, 4)).save(other / "1.png")
    (root / "fox").symlink_to(other)
    (root / "cat" / "2.png").symlink_to(other / "1.png")
    (root / "cat" / "circle").symlink_to(root)
    paths, labels = load_image_folder(root)
    assert len(paths) == 7
    assert labels.tolist().count("fox") == 1


def test_no_file_is_opened(root):
    (root / "cat" / "broken.png").write_bytes(b"no image")
    os.mkfifo(root / "cat" / "fifo.png")
    assert len(load_image_folder(root)[0]) == 7


def test_a_folder_without_classes_is_an_error_that_says_what_is_expected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="<class>"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_an_error(name, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError if name == "file" else FileNotFoundError):
        load_image_folder(tmp_path / name)


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("Train", "TEST")])
def test_a_folder_one_level_too_high_is_refused(first, second, root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    for name in (first, second):
        (above / name).symlink_to(root)
    with pytest.raises(
        ValueError, match=r"holds the splits .* hold\(s\) the classes: bird, cat, dog"
    ) as e:
        load_image_folder(above)
    assert f"load_image_folder({str(above / min(first, second))!r})" in str(e.value)


def test_a_split_without_class_folders_beside_one_with_them_is_refused(root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    (above / "train").symlink_to(root)
    (above / "test").mkdir()
    Image.new("RGB", (4, 4)).save(above / "test" / "1.png")
    with pytest.raises(ValueError, match=r"train hold\(s\) the classes") as caught:
        load_image_folder(above)
    assert f"load_image_folder({str(above / 'train')!r})" in str(caught.value)


def test_a_drive_that_does_not_exist_is_an_error(monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    with pytest.raises(FileNotFoundError, match=r"does not exist, nor does"):
        load_image_folder("missing")


def test_splits_as_classes_are_allowed_where_they_hold_no_classes(tmp_path):
    for name in ("train/1.png", "bus/1.png", "test/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert set(load_image_folder(tmp_path)[1]) == {"train", "bus", "test"}
    (tmp_path / "bus" / "1.png").unlink()
    (tmp_path / "bus").rmdir()
    assert set(load_image_folder(tmp_path)[1]) == {"train", "test"}


def test_a_class_folder_without_an_image_is_named(root):
    (root / "fox").mkdir()
    with pytest.warns(
        UnreadableImageWarning, match=r"classes without an image: 1 .*, fox"
    ) as caught:
        load_image_folder(root)
    assert caught[0].filename == __file__


def test_images_without_labels_are_listed(root):
    Image.new("RGB", (4, 4)).save(root / "up.png")
    paths = load_image_folder(root, labelled=False)
    assert paths.dtype == object
    assert [os.path.relpath(path, root) for path in paths][-2:] == ["dog/2.png", "up.png"]
    assert len(paths) == 6
    (root / "notes.txt").write_bytes(b"")
    with pytest.warns(UnreadableImageWarning, match="notes.txt") as caught:
        load_image_folder(root, labelled=False)
    assert caught[0].filename == __file__


def test_a_flat_folder_is_an_error_that_names_the_parameter(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"1 image\(s\) are in no class folder: labelled=False"):
        load_image_folder(tmp_path)
    assert len(load_image_folder(tmp_path, labelled=False)) == 1
    (tmp_path / "1.png").unlink()
    with pytest.raises(ValueError, match="no image in path="):
        load_image_folder(tmp_path, labelled=False)


def test_a_wrong_folder_is_an_error_that_says_what_is_there(root):
    with pytest.raises(FileNotFoundError, match=r"path='.*/hen' does not exist.* bird, cat, dog"):
        load_image_folder(root / "hen")
    with pytest.raises(NotADirectoryError, match=r"2\.png' is a file; pass the folder"):
        load_image_folder(root / "dog" / "2.png")
