"""Manifests of every kind are the same table, and have the same digest."""

import numpy as np
import pytest

from .conftest import small_transformer

pa = pytest.importorskip("pyarrow")
from pyarrow import csv, parquet  # noqa: E402

from sktransfer.jobs import ExtractionJob  # noqa: E402
from sktransfer.jobs._manifest import ManifestDigest, open_manifest, shards_of  # noqa: E402

TABLE = pa.table(
    {
        "url": [f"/photos/{i}.png" for i in range(9)],
        "n": [*range(8), None],
        "site": list("abcabcabc"),
    }
)


def kinds(tmp_path):
    parquet.write_table(TABLE, tmp_path / "t.parquet", row_group_size=2)
    csv.write_csv(TABLE, tmp_path / "t.csv")
    (tmp_path / "parts").mkdir()
    parquet.write_table(TABLE.slice(0, 4), tmp_path / "parts" / "0.parquet")
    parquet.write_table(TABLE.slice(4), tmp_path / "parts" / "1.parquet")
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    encoded = TABLE.set_column(2, "site", TABLE["site"].dictionary_encode())
    yield from (TABLE, encoded, tmp_path / "t.parquet", str(tmp_path / "t.csv"), tmp_path / "parts")
    yield polars.from_arrow(TABLE)
    yield pandas.DataFrame({"url": TABLE["url"].to_pylist(), "n": pandas.array(
        TABLE["n"].to_pylist(), dtype="Int64"), "site": TABLE["site"].to_pylist()})  # fmt: skip


def digest_of(manifest):
    digest = ManifestDigest(manifest.schema)
    for batch in manifest.batches:
        digest.update(batch)
    return digest


def test_a_table_is_the_same_however_it_is_stored(tmp_path):
    values, found = [], set()
    for images in kinds(tmp_path):
        manifest = open_manifest(images, "url")
        (table,) = shards_of(manifest, 100)
        values.append(table.to_pylist())
        found.add(digest_of(open_manifest(images, "url")).hexdigest())
    assert len(values) == 7
    assert all(value == values[0] for value in values)
    assert len(found) == 1


def test_shards_have_their_number_of_rows_whatever_the_batches():
    manifest = open_manifest(TABLE, "url")._replace(batches=iter(
        pa.Table.from_batches([b]).rename_columns(["path", "n", "site"])
        for b in TABLE.to_batches(max_chunksize=4)
    ))  # fmt: skip
    shards = list(shards_of(manifest, 3))
    assert [len(shard) for shard in shards] == [3, 3, 3]
    assert [p for shard in shards for p in shard["path"].to_pylist()] == TABLE["url"].to_pylist()


@pytest.mark.parametrize(
    "other",
    [
        TABLE.slice(0, 8),
        TABLE.take([1, 0, *range(2, 9)]),
        TABLE.set_column(0, "url", pa.array(["", "/photos/0.png/photos/1.png", *["x"] * 7])),
        TABLE.set_column(1, "n", pa.array([*range(8), 0])),
        TABLE.rename_columns(["url", "m", "site"]),
        TABLE.set_column(2, "site", pa.array(["", *"abcabcab"])),
    ],
)
def test_other_values_have_another_digest(other):
    first = digest_of(open_manifest(TABLE, "url")).hexdigest()
    assert digest_of(open_manifest(other, "url")).hexdigest() != first


def test_null_and_empty_text_are_two_values():
    found = {
        digest_of(open_manifest(pa.table({"path": pa.array(["a", value])}), None)).hexdigest()
        for value in ("", None)
    }
    assert len(found) == 2


@pytest.mark.parametrize(
    ("images", "column", "message"),
    [
        (TABLE.rename_columns(["a", "b", "c"]), None, "name that of the paths"),
        (pa.table({"url": ["a"], "path": ["b"]}), None, "name that of the paths"),
        (pa.table({"url": ["a"], "path": ["b"]}), "url", "a column 'path' beside"),
        (pa.table({"url": ["a"], "box": [[1, 2]]}), "url", "'box' is of type list"),
        (["a"], "url", "is for a table"),
    ],
)
def test_columns_that_cannot_be_read_are_named(images, column, message):
    with pytest.raises(ValueError, match=message):
        open_manifest(images, column)


def test_images_that_are_no_paths_are_refused():
    with pytest.raises(TypeError, match="holds int64"):
        list(open_manifest(pa.table({"path": [1, 2]}), None).batches)


def test_a_missing_path_is_a_failure_and_not_the_end(shapes, tmp_path):
    table = pa.table({"path": pa.array([shapes[0][0], None], pa.string())})
    status = ExtractionJob(small_transformer(), table, tmp_path / "job").run()
    assert (status.n_images_done, status.n_failures) == (2, 1)


def test_an_array_and_a_list_are_one_manifest(shapes):
    paths = shapes[0]
    found = {digest_of(open_manifest(X, None)).hexdigest() for X in (paths, list(paths))}
    assert len(found) == 1
    assert isinstance(paths, np.ndarray)


def test_a_file_of_a_folder_without_a_column_is_an_error_that_names_it(tmp_path):
    parquet.write_table(TABLE, tmp_path / "0.parquet")
    parquet.write_table(TABLE.drop_columns("site"), tmp_path / "1.parquet")
    with pytest.raises(ValueError, match="no column 'site'"):
        list(open_manifest(tmp_path, "url").batches)
