import os
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sktransfer.exceptions import DecodeError
from sktransfer.images import _fingerprint
from sktransfer.images._collection import PixelRange, as_images


def _digests(X, **options):
    return [image.digest() for image in as_images(X, **options)]


def _versions(X, **options):
    return [image.version() for image in as_images(X, **options)]


@pytest.fixture
def later(monkeypatch):
    """Let a minute pass at once."""
    time_ns = time.time_ns
    monkeypatch.setattr(_fingerprint.time, "time_ns", lambda: time_ns() + 60 * 10**9)


@pytest.fixture
def path(picture, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    return path


def test_one_content_has_one_digest_whatever_its_name(path, tmp_path):
    copy = tmp_path / "b.jpg"
    copy.write_bytes(path.read_bytes())
    os.utime(copy, (1, 1))
    link = tmp_path / "c.png"
    link.symlink_to(path)
    data = path.read_bytes()
    digests = _digests([path, str(path), copy, link, data, {"bytes": data, "path": "d"}])
    assert len(set(digests)) == 1


def test_one_picture_has_one_digest_in_arrays_of_any_memory_layout(picture):
    views = [picture, np.asfortranarray(picture), picture[::-1].copy()[::-1]]
    assert len(set(_digests(views))) == 1


def test_what_is_read_differently_has_another_digest(picture):
    grey = np.zeros((8, 6), dtype=np.uint8)
    different = [
        picture,
        picture[::-1],
        picture.astype(np.int64),
        grey,
        grey.reshape(6, 8),
        grey.reshape(8, 6, 1),
        Image.fromarray(picture),
    ]
    assert len(set(_digests(different))) == len(different)


@pytest.mark.parametrize("kind", ["path", "bytes", "array"])
def test_the_range_of_values_is_part_of_the_digest(kind, path, picture):
    image = {"path": path, "bytes": path.read_bytes(), "array": picture}[kind]
    ranges = [None, PixelRange(0, 255), PixelRange(0, 4095), PixelRange(0, 4095, clip=True)]
    assert len({_digests([image], pixel_range=wanted)[0] for wanted in ranges}) == len(ranges)


def test_a_file_changed_a_moment_ago_is_read_again(path, monkeypatch):
    (first,) = _digests([path])
    monkeypatch.setattr(_fingerprint, "read_file", lambda path: b"other")
    assert _digests([path]) != [first]


def test_a_changed_file_has_another_digest_even_with_the_old_size_and_time(path):
    (first,) = _digests([path])
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert _digests([path]) != [first]


def test_a_relative_path_is_not_mixed_up_after_a_change_of_folder(tmp_path, monkeypatch, encode):
    digests = []
    for name, grey in {"one": 10, "two": 20}.items():
        (tmp_path / name).mkdir()
        file = tmp_path / name / "a.bmp"
        file.write_bytes(encode(Image.new("L", (4, 4), grey), "BMP"))
        os.utime(file, ns=(10**18, 10**18))
        monkeypatch.chdir(tmp_path / name)
        digests += _digests(["a.bmp"])
    assert digests[0] != digests[1]


def test_a_file_has_one_version_while_it_stays_the_same(path, later, monkeypatch):
    (version,) = _versions([path])
    assert len(version) == 16
    monkeypatch.chdir(path.parent)
    assert _versions([str(path), path.name]) == [version] * 2


@pytest.mark.parametrize("change", ["content", "time", "another file"])
def test_a_changed_file_has_another_version(change, path, later):
    (before,) = _versions([path])
    if change == "content":  # of the same size, with the old time
        status, data = path.stat(), bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "time":
        os.utime(path, (1, 1))
    else:
        other = path.with_name("other.png")
        other.write_bytes(path.read_bytes())
        other.replace(path)
    assert _versions([path]) != [before]


def test_a_range_of_values_and_a_name_give_other_versions(path, later, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(path)
    (in_range,) = _versions([path], pixel_range=PixelRange(0, 4095))
    assert len({*_versions([path, link]), in_range}) == 3


def test_a_file_changed_a_moment_ago_or_in_the_future_has_no_version(path):
    assert _versions([path]) == [None]
    os.utime(path, (2**33, 2**33))
    assert _versions([path]) == [None]


def test_only_files_have_a_version(picture, path):
    images = [picture, path.read_bytes(), Image.fromarray(picture), None]
    assert _versions(images) == [None] * 4


def test_any_number_of_a_file_and_any_time_has_a_version(path, later, monkeypatch):
    status = os.stat(path)
    versions = _versions([path])
    for name, value in (("st_ino", 2**100), ("st_mtime_ns", -(10**20)), ("st_size", 7)):
        values = {
            field: getattr(status, field)
            for field in ("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
        }
        changed = types.SimpleNamespace(**{**values, name: value})
        monkeypatch.setattr(_fingerprint.os, "stat", lambda path, changed=changed: changed)
        versions += _versions([path])
        monkeypatch.undo()
        monkeypatch.setattr(_fingerprint.time, "time_ns", lambda: 2 * 10**18)
    assert len(set(versions)) == 4


def test_a_known_digest_is_not_computed_again_and_memory_is_still_reserved(path, picture):
    for cell, reserves in ((path.read_bytes(), True), (picture, False)):
        (image,) = as_images([cell])
        reserved = []
        content = image.load(b"a known digest..")
        np.testing.assert_array_equal(content.decode(reserved.append), picture)
        assert content.digest == b"a known digest.."
        assert (reserved != []) == reserves


@pytest.mark.skipif(os.name == "nt", reason="the path of Windows has other slashes")
def test_a_url_that_was_made_a_path_is_told():
    with pytest.raises(DecodeError, match=r"pathlib\.Path has taken a slash"):
        _versions([Path("s3://bucket/a.png")])
    with pytest.raises(DecodeError, match=r"no such file\Z"):
        _versions(["C:/folder/a.png"])


def test_a_file_that_comes_in_small_parts_is_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(bytes(range(100)))
    read = os.read
    monkeypatch.setattr(os, "read", lambda file, n_bytes: read(file, min(n_bytes, 7)))
    assert _fingerprint.read_file(path) == bytes(range(100))


def test_a_file_that_becomes_shorter_is_read_to_its_end(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(bytes(range(100)))
    check = _fingerprint.check_file

    def check_and_cut(status):
        check(status)
        os.truncate(path, 60)

    monkeypatch.setattr(_fingerprint, "check_file", check_and_cut)
    monkeypatch.setattr(_fingerprint, "file_status", lambda path: None)
    assert _fingerprint.read_file(path) == bytes(range(60))
