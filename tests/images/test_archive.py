"""Members of zip and tar archives: on disk, in a bucket, in memory; damaged and replaced ones."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sktransfer import PretrainedFeatureTransformer, count_forward_passes, load_image_folder
from sktransfer.exceptions import DecodeError
from sktransfer.images import _archive, _fingerprint
from sktransfer.images._blob import LocalBlob, Part
from sktransfer.images._image_ref import RemoteImage

LONG = f"{'folder/' * 30}ü.png"  # longer than the header of a tar file has room for
FILES = {"a/0.png": b"first", LONG: bytes(range(256)) * 40, "b/2.png": b"third", "b/note.txt": b"."}


@pytest.fixture(autouse=True)
def no_tables():
    _archive._tables.clear()


def zipped(files, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(files, format=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


ARCHIVES = {
    "deflated.zip": zipped(FILES),
    "stored.zip": zipped(FILES, zipfile.ZIP_STORED),
    "pax.tar": tarred(FILES),
    "gnu.tar": tarred(FILES, tarfile.GNU_FORMAT),
}


def of(archive, name, kind=None):
    return RemoteImage(f"{kind or str(archive)[-3:]}://{name}::{archive}")


@pytest.fixture(params=ARCHIVES)
def archive(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(ARCHIVES[request.param])
    return path


def test_members_are_read_as_they_were_put_in(archive):
    for name, data in FILES.items():
        assert of(archive, name).encoded().data == data


@pytest.fixture
def tables(monkeypatch):
    """Return a list of the archives whose tables were read."""
    read, kinds = _archive._read_table, []

    def noting(kind, blob):
        kinds.append(kind)
        return read(kind, blob)

    monkeypatch.setattr(_archive, "_read_table", noting)
    return kinds


def test_the_table_is_read_once(archive, tables, settled):
    for name in FILES:
        of(archive, name).encoded()
    for _ in range(3):  # what is not there is not looked for in the archive again and again
        with pytest.raises(DecodeError, match="no such file in the archive"):
            of(archive, "missing.png").encoded()
    assert len(tables) == 1


def test_a_table_that_can_not_be_read_is_not_read_for_each_member(archive, tables, settled):
    archive.write_bytes(archive.read_bytes()[:700])
    for name in FILES:
        with pytest.raises(DecodeError, match="archive"):
            of(archive, name).encoded()
    assert len(tables) == 1


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.setattr(_fingerprint, "_SETTLED_AFTER", -(10**12))


def test_members_of_a_bucket_are_ranges_and_their_version_is_that_of_the_archive(s3):
    for name, data in ARCHIVES.items():
        url = s3.put(name, data)
        image = of(url, "b/2.png")
        read = image.encoded()
        assert read.data == b"third"
        assert read.name == f"{name[-3:]}://b/2.png::{url}"
        assert read.version() == image.version() is not None
        assert of(url, LONG).encoded().version() not in (None, read.version())
        s3.forget()
        assert of(url, "a/0.png").encoded().data == b"first"
        assert len(s3.requests()) == 1


def test_the_version_of_a_member_of_a_file_is_that_of_the_file(archive, monkeypatch):
    image = of(archive, "a/0.png")
    assert image.version() is image.encoded().version() is None  # it may change at once
    monkeypatch.setattr(_fingerprint, "_SETTLED_AFTER", -(10**12))
    assert image.encoded().version() == image.version() is not None
    assert image.version() != of(archive, "b/2.png").version()


def test_members_in_memory_are_read():
    import fsspec

    files = fsspec.filesystem("memory")
    files.pipe("/archive/pax.tar", ARCHIVES["pax.tar"])
    files.pipe("/archive/1.png", b"bytes")
    try:
        assert of("memory://archive/pax.tar", "a/0.png").encoded().data == b"first"
        image = RemoteImage("memory://archive/1.png")
        assert image.encoded().data == b"bytes"
        assert image.version() is None
        with pytest.warns(UserWarning, match=r"pax\.tar"):
            assert load_image_folder("memory://archive", labelled=False).tolist() == [image.url]
        with pytest.raises(DecodeError, match="in the memory of this process"):
            RemoteImage("memory://archive/2.png").read()
    finally:
        files.rm("/archive", recursive=True)


def test_an_archive_that_was_replaced_gives_its_new_members(archive):
    kind = archive.suffix[1:]
    assert of(archive, "b/2.png").encoded().data == b"third"
    files = {"new/0.png": b"other", "b/2.png": b"changed", "z": b"9"}
    archive.write_bytes(zipped(files) if kind == "zip" else tarred(files))
    assert of(archive, "b/2.png").encoded().data == b"changed"
    assert of(archive, "new/0.png").encoded().data == b"other"
    with pytest.raises(DecodeError, match="no such file in the archive"):
        of(archive, "a/0.png").encoded()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_in_a_bucket_that_was_replaced_by_a_smaller_one_is_read(s3, kind):
    make = {"zip": zipped, "tar": tarred}[kind]
    noise = np.random.default_rng(0).bytes(50_000)
    url = s3.put(f"a.{kind}", make({"0.png": noise, "1.png": b"one"}))
    assert of(url, "1.png").encoded().data == b"one"
    s3.put(f"a.{kind}", make({"1.png": b"new"}))
    image = of(url, "1.png")
    read = image.encoded()
    assert read.data == b"new"
    assert read.version() == image.version()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_another_member_at_the_same_place_is_not_taken_for_it(tmp_path, kind):
    path, make = tmp_path / f"a.{kind}", {"zip": zipped, "tar": tarred}[kind]
    path.write_bytes(make({"1.png": b"one", "2.png": b"two"}))
    assert of(path, "1.png").encoded().data == b"one"
    path.write_bytes(make({"2.png": b"two", "1.png": b"one"}))
    assert of(path, "1.png").encoded().data == b"one"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_was_appended_replaces_the_one_of_its_name(tmp_path, settled, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes({"zip": zipped, "tar": tarred}[kind]({"1.png": b"one", "2.png": b"two"}))
    assert of(path, "1.png").encoded().data == b"one"
    if kind == "zip":
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("1.png", b"new")
    else:
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo("1.png")
            info.size = 3
            archive.addfile(info, io.BytesIO(b"new"))
    image = of(path, "1.png")  # the first one still stands where it stood
    read = image.encoded()
    assert read.data == b"new"
    assert read.version() == image.version()


def test_servers_with_tags_of_their_own_do_not_make_the_table_be_read_for_ever(
    archive, tables, monkeypatch
):
    numbers = iter(range(10**6))
    read_range = LocalBlob.read_range

    def tagged(self, start, length):
        return Part(read_range(self, start, length).data, str(next(numbers)))

    monkeypatch.setattr(LocalBlob, "read_range", tagged)
    for _ in range(40):
        read = of(archive, "b/2.png").encoded()
        assert read.data == b"third"
    assert read.version() is None
    assert len(tables) <= _archive._MOST_CHANGES + 1


@pytest.mark.parametrize("end", [1000, 10, 0])
def test_an_archive_that_ends_early_is_an_error(archive, end):
    archive.write_bytes(archive.read_bytes()[:end])
    with pytest.raises(DecodeError, match="archive"):
        of(archive, "b/2.png").encoded()


def test_a_member_that_was_damaged_is_an_error(tmp_path):
    path = tmp_path / "a.zip"
    data = bytearray(zipped({"1.png": bytes(1000)}, zipfile.ZIP_STORED))
    data[300] = 1
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="another checksum"):
        of(path, "1.png").encoded()


def test_a_member_that_says_to_be_small_is_not_unpacked_beyond_that(tmp_path):
    path = tmp_path / "a.zip"
    data = zipped({"1.png": bytes(10**6)})
    path.write_bytes(data.replace(struct.pack("<I", 10**6), struct.pack("<I", 10)))
    with pytest.raises(DecodeError, match="another checksum"):
        of(path, "1.png").encoded()


def test_a_member_that_says_to_be_large_is_not_read(tmp_path):
    path = tmp_path / "a.zip"
    data = zipped({"1.png": bytes(1000)})
    path.write_bytes(data.replace(struct.pack("<I", 1000), struct.pack("<I", 2**31)))
    with pytest.raises(DecodeError, match="2,147,483,648 bytes, more than"):
        of(path, "1.png").encoded()


def test_a_member_that_takes_more_than_it_has_is_not_read(tmp_path, settled):
    path = tmp_path / "a.zip"
    data = zipped({"1.png": b"x", "2.png": bytes(2**22)}, zipfile.ZIP_STORED)
    table = data.index(b"PK\x01\x02")
    first = data.index(b"1.png", table) - 46
    second = data.index(b"2.png", table) - 46
    # the second file is taken out of the table, and the first one said to reach to its end
    rest = bytearray(data[table:second])
    rest[first - table + 20 : first - table + 24] = struct.pack("<I", 2**22)
    tail = bytearray(data[data.index(b"PK\x05\x06") :])
    tail[8:16] = struct.pack("<HHI", 2, 2, len(rest))
    path.write_bytes(data[:table] + rest + tail)
    with pytest.raises(DecodeError, match="takes more bytes"):
        of(path, "1.png").encoded()


def _header(name, kind, size):
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


HOSTILE_TARS = {
    "a note of 8 GB": _header(b"x", b"x", 2**33 - 1),
    "a name of 2**62 bytes": _header(b"x", b"L", 2**62),
    "a size below zero": _header(b"1.png", b"0", -1024) + bytes(4096),
    "a note of a size below zero": _header(b"x", b"x", -512) + bytes(4096),
    "many notes before one file": (_header(b"x", b"x", 0)) * 5000 + _header(b"1.png", b"0", 0),
    "a sparse file without an end": (
        _header(b"1.png", b"S", 0)[:482]
        + b"\x01"
        + bytes(29)
        + (bytes(504) + b"\x01" + bytes(7)) * 3000
    ),
}


@pytest.mark.parametrize("what", HOSTILE_TARS)
def test_a_hostile_tar_is_an_image_error(tmp_path, what):
    path = tmp_path / "a.tar"
    data = tarred({"0.png": b"first"})
    path.write_bytes(data[: data.index(b"first") + 512] + HOSTILE_TARS[what] + bytes(2**20 * 2))
    with pytest.raises(DecodeError, match=r"no such file in the archive|no tar archive"):
        of(path, "1.png").encoded()


def zip_with(place, value, data=None):
    """Return a zip file with bytes changed in its table, from the entry's start."""
    data = bytearray(data or zipped({"1.png": b"first"}))
    table = data.index(b"PK\x01\x02") + place
    data[table : table + len(value)] = value
    return bytes(data)


HOSTILE_ZIPS = {
    "a version of the future": zip_with(6, b"\xff\x00"),
    "a name that is no text": zip_with(8, b"\x00\x08", zip_with(46, b"\xff")),
    "a place outside": zip_with(42, struct.pack("<I", 2**31)),
    "a table of 4 GB": zipped({"1.png": b"first"})[:-10] + struct.pack("<IIH", 2**32 - 2, 0, 0),
    "an extra field that ends early": zip_with(30, b"\x04\x00"),
}


@pytest.mark.parametrize("what", HOSTILE_ZIPS)
def test_a_hostile_zip_is_an_image_error(tmp_path, what):
    path = tmp_path / "a.zip"
    path.write_bytes(HOSTILE_ZIPS[what])
    with pytest.raises(DecodeError, match="archive"):
        of(path, "1.png").encoded()


def test_an_archive_of_too_many_files_or_with_too_large_a_table_is_not_read(archive, monkeypatch):
    monkeypatch.setattr(_archive, "_MOST_FILES", 3)
    with pytest.raises(DecodeError, match="more than 3 files"):
        of(archive, "b/2.png").encoded()
    monkeypatch.undo()
    _archive._tables.clear()
    for limit in ("_MOST_TABLE", "_MOST_HEADER"):
        monkeypatch.setattr(_archive, limit, 100)
    with pytest.raises(DecodeError, match="too large"):
        of(archive, "b/2.png").encoded()


def test_a_sparse_file_in_a_tar_is_no_image(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(
        _header(b"1.png", b"S", 512) + bytes(512) + _header(b"2.png", b"0", 0) + bytes(1024)
    )
    with pytest.raises(DecodeError, match="no such file in the archive"):
        of(path, "1.png").encoded()


def test_a_link_or_a_folder_in_a_tar_is_no_image(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DecodeError, match="no such file in the archive"):
        of(path, "link.png").encoded()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", b"no archive", "no zip archive"),
        ("a.tar", b"no archive" * 100, "no tar archive"),
        ("a.tar", b"\x1f\x8b" + bytes(1000), "must be unpacked"),
    ],
)
def test_what_is_no_archive_is_an_image_error(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DecodeError, match=message):
        of(tmp_path / name, "1.png").read()


def test_a_missing_archive_is_an_image_error(tmp_path):
    for name in ("a.zip", "a.tar"):
        with pytest.raises(DecodeError, match="the archive: no such file"):
            of(tmp_path / name, "1.png").read()


def test_an_encrypted_member_is_named(tmp_path):
    path = tmp_path / "a.zip"
    data = bytearray(zipped({"1.png": b"bytes"}))
    place = data.rindex(b"PK\x01\x02") + 8  # the flags in the table
    data[place] |= 1
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="encrypted"):
        of(path, "1.png").encoded()


def test_a_folder_in_an_archive_is_loaded(archive):
    kind = archive.suffix[1:]
    with pytest.warns(UserWarning, match=r"note\.txt"):
        urls, labels = load_image_folder(f"{kind}://::{archive}")
    expected = [f"{kind}://{name}::{archive}" for name in sorted(FILES) if name.endswith("png")]
    assert urls.tolist() == expected
    assert labels.tolist() == ["a", "b", "folder"]
    with pytest.warns(UserWarning, match=r"note\.txt"):
        below = load_image_folder(f"{kind}://b::{archive}", labelled=False)
    assert below.tolist() == [f"{kind}://b/2.png::{archive}"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_warm_run_over_shards_asks_once_for_each_shard(s3, shapes, tmp_path, kind):
    paths = shapes[0]
    contents = [Path(path).read_bytes() for path in paths]
    X = []
    for shard in range(2):
        files = {f"{i:03}.png": contents[i] for i in range(shard, len(paths), 2)}
        data = zipped(files, zipfile.ZIP_STORED) if kind == "zip" else tarred(files)
        url = s3.put(f"shard-{shard}.{kind}", data)
        X += [f"{kind}://{name}::{url}" for name in files]
    transformer = PretrainedFeatureTransformer(
        "mini", image_size=32, precision="float32", feature_cache=tmp_path
    )
    rows = transformer.fit_transform(X)
    s3.forget()
    with count_forward_passes() as counter:
        np.testing.assert_array_equal(transformer.fit_transform(X), rows)
    assert counter.computed == 0
    assert [method for method, _, _ in s3.requests()] == ["HEAD", "HEAD"]
    order = [*paths[0::2], *paths[1::2]]
    np.testing.assert_array_equal(transformer.fit_transform(order), rows)
