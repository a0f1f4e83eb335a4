"""Jobs whose images, manifest and folder are objects on an S3 server."""

import io
from pathlib import Path

import numpy as np
import pytest

from sktransfer import count_forward_passes
from sktransfer._object_store import ObjectStoreError
from sktransfer.exceptions import DecodeError
from sktransfer.images._remote import RefusedError
from sktransfer.jobs import ExtractionJob, import_rows, load_rows
from sktransfer.jobs import _confirmed as confirmed_module
from sktransfer.jobs._remote_folder import open_folder

from .conftest import digests, small_transformer

pa = pytest.importorskip("pyarrow")


def test_a_job_from_a_bucket_to_a_bucket_is_that_of_files(s3, shapes, tmp_path):
    from pyarrow import parquet

    paths, labels = shapes[0][:9], shapes[1][:9].tolist()
    urls = s3.put_files(paths).tolist()
    content = io.BytesIO()
    parquet.write_table(pa.table({"url": urls, "label": labels}), content)
    manifest = s3.put("in/manifest.parquet", content.getvalue())
    job = ExtractionJob(small_transformer(), manifest, f"s3://{s3.name}/out/job", rows_per_shard=4)
    status = job.run()
    assert (status.is_complete, status.n_failures, status.n_shards_done) == (True, 0, 3)
    there = load_rows(job.out)
    local = ExtractionJob(small_transformer(), list(paths), tmp_path / "job", rows_per_shard=4)
    local.run()
    here = load_rows(local.out)
    np.testing.assert_array_equal(there.row, here.row)
    np.testing.assert_array_equal(there.digest, here.digest)
    assert there.label.tolist() == labels
    table = load_rows(job.out, output="arrow").to_table(columns=["label"])
    assert table["label"].to_pylist() == labels

    # A search elsewhere passes no image, and reads no object: their versions are known.
    import_rows(job.out, feature_cache=tmp_path / "store", check=2)
    s3.forget()
    with count_forward_passes() as counter:
        small_transformer(feature_cache=tmp_path / "store").fit_transform(urls)
    assert (counter.computed, s3.reads()) == (0, [])
    # one that was replaced by another is read
    s3.put("images/" + urls[0].rpartition("/")[2], Path(shapes[0][1]).read_bytes())
    s3.forget()
    rows = small_transformer(feature_cache=tmp_path / "store").fit_transform(urls)
    assert s3.reads() == [urls[0].removeprefix(f"s3://{s3.name}/")]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_a_shard_that_is_there_is_not_replaced(s3, shapes):
    job = ExtractionJob(
        small_transformer(), list(shapes[0][:3]), f"s3://{s3.name}/job", rows_per_shard=2
    )
    folder = open_folder(job.out)
    with folder.new_file("rows/0000001.parquet") as late:
        assert job.run_shard(1)
        first = folder.read("rows/0000001.parquet")
        late.write_bytes(b"another")
    assert folder.read("rows/0000001.parquet") == first
    assert not job.run_shard(1)
    with pytest.raises(FileNotFoundError, match=r"s3://.*/job/none"):
        folder.read("none")


def test_an_object_that_is_missing_is_a_null_and_a_server_that_is_down_no_shard(
    s3, shapes, tmp_path, monkeypatch
):
    urls = [*s3.put_files(shapes[0][:3]), f"s3://{s3.name}/images/missing.png"]
    job = ExtractionJob(small_transformer(), urls, tmp_path / "job")
    monkeypatch.setenv("SKTRANSFER_REMOTE_RETRIES", "0")
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nothing listens
        with pytest.raises(OSError, match="the shard is not written"):
            job.run()
    assert job.status().n_shards_done == 0
    assert job.run().n_failures == 1
    rows = load_rows(job.out, on_error="nan")
    assert "no such object" in rows.error[3]
    assert digests(job.out)


def test_what_fails_for_a_moment_is_computed_again(monkeypatch):
    answers = iter([None, DecodeError("no such page")])
    monkeypatch.setattr(confirmed_module, "_error", lambda image: next(answers))
    calls = []

    class Failed:
        failures = (type("Failure", (), {"position": 1}),)

    def extract():
        calls.append(1)
        return Failed

    assert confirmed_module.confirmed(["a.png", "https://a/b.png"], extract) is Failed
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("https://user:hidden@example.org/in.parquet", "images='https://example.org' can't"),
        ("https://example.org/in.txt?signature=hidden", "images must be"),
    ],
)
def test_a_manifest_that_can_not_be_read_is_named_without_a_password(images, said, tmp_path):
    with pytest.raises(ValueError, match=said) as raised:
        ExtractionJob(small_transformer(), images, tmp_path / "job")
    assert "hidden" not in str(raised.value)
    with pytest.raises(ValueError, match="out='s3://bucket/job'") as raised:
        ExtractionJob(small_transformer(), ["a.png"], "s3://user:hidden@bucket/job")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("out", ["ftp://a/b", "s3://", "https://example.org/job"])
def test_a_folder_that_can_not_be_written_is_named(out, shapes):
    with pytest.raises(ValueError, match="out="):
        ExtractionJob(small_transformer(), list(shapes[0][:2]), out)


class Extracted:
    """What an extraction says of images of which some failed."""

    def __init__(self, *positions):
        self.failures = [type("Failure", (), {"position": position}) for position in positions]


@pytest.mark.parametrize("still_read", [True, False])
def test_credentials_that_end_in_the_middle_write_no_shard(monkeypatch, still_read):
    """One object that is refused is a failure; an object that was read before tells which."""

    def tag(url):
        assert url == "s3://bucket/a.png"
        if not still_read:
            raise RefusedError("access denied")

    monkeypatch.setattr(confirmed_module, "_error", lambda image: RefusedError("access denied"))
    monkeypatch.setattr(confirmed_module, "current_tag", tag)
    urls = ["s3://other/0.png", "s3://bucket/a.png", "s3://bucket/b.png"]
    extracted = Extracted(2)
    if still_read:
        assert confirmed_module.confirmed(urls, lambda: extracted) is extracted
    else:
        with pytest.raises(OSError, match=r"denied to s3://bucket/b\.png .* not written"):
            confirmed_module.confirmed(urls, lambda: extracted)


def test_a_worker_without_credentials_writes_no_shard_of_nulls(monkeypatch):
    monkeypatch.setattr(confirmed_module, "_error", lambda image: RefusedError("access denied"))
    urls = ["s3://bucket/a.png", "s3://bucket/b.png", "/a/file.png"]
    with pytest.raises(OSError, match="not written"):
        confirmed_module.confirmed(urls, lambda: Extracted(0, 1))
    # a page of the web that is refused is one page
    extracted = Extracted(0)
    assert confirmed_module.confirmed(["https://a.org/b.png"], lambda: extracted) is extracted


def test_an_object_store_that_does_not_answer_is_not_taken_for_a_damaged_shard(
    s3, shapes, monkeypatch
):
    from pyarrow import parquet

    job = ExtractionJob(small_transformer(), list(shapes[0][:2]), f"s3://{s3.name}/fails")
    job.run_shard(0)
    source = open_folder(job.out).open_to_read("rows/0000000.parquet")

    def fail(*_):
        raise ObjectStoreError("the store did not answer in time")

    monkeypatch.setattr(type(source._bucket), "get_range", fail)
    with pytest.raises(OSError, match="did not answer in time"):
        parquet.read_metadata(source)
    with pytest.raises(OSError, match="did not answer in time"):
        ExtractionJob.open(job.out).status()
