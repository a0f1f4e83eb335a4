"""Rows of a job as arrays and tables, and in a store; rows of a store as a folder."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, count_forward_passes
from sktransfer.exceptions import FeatureCacheWarning, ImageReadError
from sktransfer.jobs import ExtractionJob, export_rows, import_rows, load_rows

from .conftest import small_transformer


def test_every_output_has_the_same_rows(finished, table):
    arrays = load_rows(finished.out, on_error="nan")
    good = [i for i in range(24) if i != 5]
    frames = {name: load_rows(finished.out, output=name) for name in ("pandas", "polars")}
    frames["arrow"] = load_rows(finished.out, output="arrow").to_table().to_pandas()
    for frame in frames.values():
        rows = [None if row is None else np.asarray(row) for row in frame["row"]]
        assert rows[5] is None
        np.testing.assert_array_equal(np.stack([rows[i] for i in good]), arrays.row[good])
        assert list(frame["label"]) == table["label"].to_pylist()
        assert list(frame.columns) == ["path", "digest", "version", "row", "error", "label"]
    assert np.isnan(arrays.row[5]).all()


def test_rows_are_read_in_batches_in_their_order(whole):
    from sktransfer.jobs._load_rows import rows_of

    batches = load_rows(whole.out, output="arrow").to_batches(columns=["row"], batch_size=7)
    parts = [rows_of(batch["row"]) for batch in batches if len(batch)]
    assert max(map(len, parts)) <= 7
    np.testing.assert_array_equal(np.concatenate(parts), load_rows(whole.out).row)


def test_columns_are_chosen_and_unknown_ones_named(whole):
    assert list(load_rows(whole.out, columns=["path"])) == ["path"]
    found = load_rows(whole.out, columns=["row", "digest"])
    assert (found.row.shape, found.digest.shape) == ((24, 256), (24, 16))
    assert list(load_rows(whole.out, output="polars", columns=["path"]).columns) == ["path"]
    with pytest.raises(ValueError, match="there is no 'label'"):
        load_rows(whole.out, columns=["label"])


def test_images_that_cannot_be_read_are_listed(finished):
    with pytest.raises(ImageReadError, match=r"X\[5\] .*missing.png: no such file"):
        load_rows(finished.out)
    assert len(load_rows(finished.out, columns=["path"]).path) == 24


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"output": "list"}, ValueError, "output must be one of"),
        ({"on_error": "skip"}, ValueError, "on_error must be"),
        ({"output": "arrow", "columns": ["row"]}, ValueError, "columns is not for"),
        ({"out": "/missing"}, FileNotFoundError, "holds no job.json"),
    ],
)
def test_what_load_rows_does_not_allow_is_named(whole, params, error, message):
    with pytest.raises(error, match=message):
        load_rows(**{"out": whole.out, **params})


def test_a_damaged_page_is_an_error_and_no_row(whole, tmp_path):
    job = ExtractionJob(small_transformer(), load_rows(whole.out).path[:4], tmp_path / "job")
    job.run()
    path = Path(job.out) / "rows" / "0000000.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # within the values of the rows
    path.write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        load_rows(job.out)
    with pytest.raises((OSError, ValueError)):
        import_rows(job.out, feature_cache=tmp_path / "store", check=0)


def search(cache):
    pipeline = make_pipeline(small_transformer(feature_cache=cache), LogisticRegression())
    return GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=3)


def test_after_an_import_a_search_in_an_empty_store_passes_no_image(whole, shapes, cache, tmp_path):
    imported = import_rows(whole.out, feature_cache=cache)
    assert (imported.n_rows, imported.n_failures, imported.n_checked) == (24, 0, 8)
    with count_forward_passes() as counter:
        there = search(cache).fit(*shapes)
    assert (counter.computed, counter.cache_hits > 0) == (0, True)
    alone = search(tmp_path / "alone").fit(*shapes)
    np.testing.assert_array_equal(
        there.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(
        imported.transformer.fit_transform(shapes[0]), load_rows(whole.out).row
    )
    assert "24" in repr(imported)
    assert "24" in imported._repr_html_()


def test_a_linear_head_on_all_frozen_stages_finds_imported_rows(whole, shapes, cache):
    import_rows(whole.out, feature_cache=cache)
    classifier = FineTunedClassifier(
        "mini", freeze_depth=None, image_size=32, precision="float32", device="cpu",
        recipe="fast", augment=None, tta=1, max_epochs=1, feature_cache=cache,
    )  # fmt: skip
    with count_forward_passes() as counter:
        classifier.fit(*shapes)
    assert counter.computed == 0


def test_rows_of_several_depths_are_imported_each_under_its_key(shapes, tmp_path):
    job = ExtractionJob(
        small_transformer(depth=(-1, None, 0)), shapes[0][:6], tmp_path / "job", rows_per_shard=4
    )
    job.run()
    imported = import_rows(job.out, feature_cache=tmp_path / "store")
    assert imported.n_rows == 6
    for depth in (-1, None, 0, (0, -1)):
        with count_forward_passes() as counter:
            transformer = small_transformer(depth=depth, feature_cache=tmp_path / "store")
            rows = transformer.fit_transform(shapes[0][:6])
        assert counter.computed == 0
        alone = small_transformer(depth=depth, feature_cache=None).fit_transform(shapes[0][:6])
        np.testing.assert_allclose(rows, alone, rtol=1e-4, atol=1e-5)


def test_rows_in_bfloat16_are_imported_as_they_were(shapes, tmp_path):
    params = {"precision": "bfloat16"}
    job = ExtractionJob(small_transformer(**params), shapes[0][:4], tmp_path / "job")
    job.run()
    import_rows(job.out, feature_cache=tmp_path / "store")
    transformer = small_transformer(**params, feature_cache=tmp_path / "store")
    with count_forward_passes() as counter:
        rows = transformer.fit_transform(shapes[0][:4])
    assert counter.computed == 0
    np.testing.assert_array_equal(rows, load_rows(job.out).row)


def test_a_file_that_changed_since_is_not_taken_for_what_it_was(whole, shapes, cache, tmp_path):
    import_rows(whole.out, feature_cache=cache)
    changed = tmp_path / "image.png"
    changed.write_bytes(Path(shapes[0][1]).read_bytes())
    wanted = small_transformer(feature_cache=None).fit_transform([str(changed)])
    with count_forward_passes() as counter:
        rows = small_transformer(feature_cache=cache).fit_transform([str(changed)])
    assert counter.computed == 0  # a copy of an image that the job has seen
    np.testing.assert_allclose(rows, wanted, rtol=1e-4, atol=1e-6)
    changed.write_bytes(Path(shapes[0][0]).read_bytes() + b"\\0")
    with count_forward_passes() as counter:
        small_transformer(feature_cache=cache).fit_transform([str(changed)])
    assert counter.computed == 1


def rewrite(job, change, nulls=()):
    """Change the rows of a job's first shard, in place and with the same facts."""
    import pyarrow
    from pyarrow import parquet

    path = Path(job.out) / "rows" / "0000000.parquet"
    metadata = parquet.read_metadata(path).metadata
    table = parquet.read_table(path)
    rows = np.stack(table["row"].to_pylist()).astype(np.float32)
    change(rows)
    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
    field = table.schema.field("row")
    values = values.cast(field.type).to_pylist()
    values = [None if i in nulls else value for i, value in enumerate(values)]
    table = table.set_column(3, field, pyarrow.array(values, field.type))
    parquet.write_table(table.replace_schema_metadata(metadata), path)


def test_rows_that_are_not_what_the_code_computes_are_refused(shapes, tmp_path):
    job = ExtractionJob(small_transformer(), shapes[0][:4], tmp_path / "job")
    job.run()

    def swap(rows):
        rows[:] = rows[::-1].copy()

    rewrite(job, swap)
    with pytest.raises(ValueError, match="differs from what is computed here"):
        import_rows(job.out, feature_cache=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert import_rows(job.out, feature_cache=tmp_path / "store", check=0).n_checked == 0


def test_rows_of_other_code_are_refused_by_the_name_of_what_differs(whole, tmp_path, monkeypatch):
    from sktransfer.extraction import _feature_extractor

    monkeypatch.setattr(_feature_extractor, "PREPROCESSING_VERSION", 99)
    with pytest.raises(ValueError, match=r"image_code\.preprocessing: \d+ there, 99 here"):
        import_rows(whole.out, feature_cache=tmp_path / "store")


def test_rounded_rows_a_store_that_is_too_small_and_none_are_refused(
    whole, shapes, tmp_path, monkeypatch
):
    job = ExtractionJob(small_transformer(), shapes[0][:2], tmp_path / "job", dtype="float16")
    job.run()
    with pytest.raises(ValueError, match="float16, which are rounded"):
        import_rows(job.out, feature_cache=tmp_path / "store")
    with pytest.raises(ValueError, match="must name a store"):
        import_rows(whole.out, feature_cache=None)
    with pytest.raises(ValueError, match="check must be"):
        import_rows(whole.out, feature_cache=tmp_path / "store", check=-1)
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "10K")
    with pytest.raises(ValueError, match="SKTRANSFER_CACHE_LIMIT"):
        import_rows(whole.out, feature_cache=tmp_path / "store")


def test_a_store_that_cannot_be_written_is_an_error(whole, tmp_path):
    (tmp_path / "store").write_text("a file in its place")
    with (
        pytest.warns(FeatureCacheWarning, match="store"),
        pytest.raises(OSError, match="did not keep"),
    ):
        import_rows(whole.out, feature_cache=tmp_path / "store", check=0)


def test_what_a_store_has_is_exported_without_a_pass_and_imported_again(shapes, cache, tmp_path):
    transformer = small_transformer(feature_cache=cache)
    rows = transformer.fit_transform(shapes[0])
    with count_forward_passes() as counter:
        status = export_rows(transformer, shapes[0], tmp_path / "rows", rows_per_shard=9)
    assert counter.computed == 0
    assert (status.is_complete, status.n_shards) == (True, 3)
    np.testing.assert_array_equal(load_rows(tmp_path / "rows").row, rows)
    import_rows(tmp_path / "rows", feature_cache=tmp_path / "other")
    with count_forward_passes() as counter:
        there = small_transformer(feature_cache=tmp_path / "other").fit_transform(shapes[0])
    assert counter.computed == 0
    np.testing.assert_array_equal(there, rows)


def test_an_export_needs_a_store(shapes, tmp_path):
    with pytest.raises(ValueError, match="feature_cache is a store"):
        export_rows(small_transformer(feature_cache=None), shapes[0], tmp_path / "rows")


def test_without_polars_its_name_is_in_the_error(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="needs polars"):
        load_rows(whole.out, output="polars")


def test_a_row_that_is_nan_or_null_beside_a_digest_is_not_put_into_a_store(shapes, tmp_path):
    job = ExtractionJob(small_transformer(), shapes[0][:4], tmp_path / "job")
    job.run()

    def spoil(rows):
        rows[2, 3] = np.nan

    rewrite(job, spoil, nulls=[1])
    with pytest.raises(ValueError, match="neither a row nor an error"):
        load_rows(job.out)
    imported = import_rows(job.out, feature_cache=tmp_path / "store", check=0)
    assert (imported.n_rows, imported.n_failures) == (2, 2)
    with count_forward_passes() as counter:
        rows = small_transformer(feature_cache=tmp_path / "store").fit_transform(shapes[0][:4])
    assert counter.computed == 2
    assert np.isfinite(rows).all()


def test_the_password_of_a_url_that_failed_is_not_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_REMOTE_SCHEMES", "s3")
    url = "https://user:hidden@example.org/a.png?X-Amz-Signature=hidden"
    job = ExtractionJob(small_transformer(), [url], tmp_path / "job")
    job.run()
    with pytest.raises(ImageReadError, match=r"https://example\.org/a\.png") as raised:
        load_rows(job.out)
    assert "hidden" not in str(raised.value)


def test_no_column_is_no_column(whole):
    assert not load_rows(whole.out, columns=[])
