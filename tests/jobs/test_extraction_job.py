"""A job is the same however often, in whatever order and by whomever its shards are run."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.jobs import ExtractionJob, _status, load_rows
from sktransfer.jobs._folder import LocalFolder

from .conftest import digests, small_transformer


def make(table, out, **params):
    params = {"rows_per_shard": 5, **params}
    return ExtractionJob(small_transformer(), table, out, **params)


def test_rows_are_those_of_the_transformer_in_order_with_what_was_carried(finished, table):
    rows = load_rows(finished.out, on_error="nan")
    expected = small_transformer(on_error="nan", feature_cache=None)
    with pytest.warns(UserWarning, match="can't be read"):
        wanted = expected.fit_transform(table["path"].to_pylist())
    np.testing.assert_allclose(rows.row, wanted, rtol=1e-4, atol=1e-6)
    assert rows.path.tolist() == table["path"].to_pylist()
    assert rows.label.tolist() == table["label"].to_pylist()


def test_an_image_that_cannot_be_read_is_a_null_with_its_error_and_is_counted(finished):
    rows = load_rows(finished.out, output="arrow").to_table()
    assert [i for i, row in enumerate(rows["row"].to_pylist()) if row is None] == [5]
    assert [i for i, digest in enumerate(rows["digest"].to_pylist()) if digest is None] == [5]
    assert rows["error"][5].as_py() == "no such file"
    assert rows["error"].null_count == 23
    assert finished.status().n_failures == 1


def test_a_shard_of_which_no_image_can_be_read_is_whole(tmp_path):
    job = make(["/missing/a.png", "/missing/b.png"], tmp_path / "job")
    assert job.run().n_failures == 2
    assert load_rows(job.out, on_error="nan").row.shape == (2, 256)


def test_shards_have_the_same_bytes_in_every_order_and_number_of_threads(finished, table, tmp_path):
    job = make(table, tmp_path / "job")
    for shard in (4, 0, 2, 1, 3):
        assert job.run_shard(shard, n_jobs=1 + shard % 3)
    assert digests(job.out) == digests(finished.out)
    assert load_rows(job.out, on_error="nan").path.tolist() == table["path"].to_pylist()


def test_no_row_is_computed_twice_and_a_shard_in_place_is_left_alone(table, tmp_path):
    job = make(table, tmp_path / "job")
    job.run_shard(2)
    path = Path(job.out) / "rows" / "0000002.parquet"
    before = path.stat()
    with count_forward_passes() as counter:
        assert not job.run_shard(2)
        job.run()
    assert counter.computed == 24 - 5 - 1
    assert path.stat() == before


def test_the_file_that_is_there_first_stays(tmp_path):
    folder = LocalFolder(tmp_path)
    with folder.new_file("rows/a") as late:
        late.write_bytes(b"late")
        with folder.new_file("rows/a") as early:
            early.write_bytes(b"early")
    assert folder.read("rows/a") == b"early"
    assert list(folder.list("rows/")) == ["rows/a"]
    assert os.listdir(tmp_path / "rows") == ["a"]


def test_without_links_a_file_is_renamed_unless_one_is_there(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    folder = LocalFolder(tmp_path)
    for content in (b"first", b"second"):
        with folder.new_file("a") as aside:
            aside.write_bytes(content)
    assert folder.read("a") == b"first"
    assert os.listdir(tmp_path) == ["a"]


def test_what_fails_while_it_is_written_is_not_put_in_place(tmp_path):
    folder = LocalFolder(tmp_path)

    def write_half():
        with folder.new_file("a") as aside:
            aside.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert not os.listdir(tmp_path)


# Killed in the worst moment: the shard is written, and not in place.
KILLED = """
import os, signal, sys
from sktransfer.jobs import ExtractionJob
from sktransfer.jobs import _folder
put, n_left = _folder._put_in_place, int(sys.argv[2])
def put_or_die(aside, path):
    global n_left
    if not n_left:
        os.kill(os.getpid(), signal.SIGKILL)
    n_left -= 1
    put(aside, path)
_folder._put_in_place = put_or_die
ExtractionJob.open(sys.argv[1]).run()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_job_that_is_killed_between_write_and_rename_goes_on(finished, table, tmp_path):
    job = make(table, tmp_path / "job")
    done = subprocess.run([sys.executable, "-c", KILLED, job.out, "2"])
    assert done.returncode == -signal.SIGKILL
    assert [name for name in os.listdir(Path(job.out) / "rows") if name.startswith(".")]
    assert not (Path(job.out) / "_SUCCESS").exists()
    committed = LocalFolder(job.out).list("rows/")
    assert job.status().n_shards_done == len(committed) == 2
    with pytest.raises(ValueError, match="2 of 5 shards"):
        load_rows(job.out)
    assert len(load_rows(job.out, partial=True, on_error="nan").row) <= 10
    assert job.run().is_complete
    assert digests(job.out) == digests(finished.out)  # nothing is left aside either
    assert LocalFolder(job.out).list("rows/").items() >= committed.items()


def test_two_drivers_that_start_together_do_not_harm_each_other(finished, table, tmp_path):
    job = make(table, tmp_path / "job")
    code = "import sys; from sktransfer.jobs import ExtractionJob as J; J.open(sys.argv[1]).run()"
    drivers = [subprocess.Popen([sys.executable, "-c", code, job.out]) for _ in range(2)]
    assert [driver.wait() for driver in drivers] == [0, 0]
    assert job.status().is_complete
    assert digests(job.out) == digests(finished.out)


def test_the_same_call_finds_the_job_that_is_there(table, tmp_path, finished):
    again = make(table, finished.out)
    assert again.status().is_complete
    assert again.fingerprint == finished.fingerprint
    # in whatever pieces the same table comes
    pieces = table.from_batches(table.to_batches(max_chunksize=3))
    assert make(pieces, finished.out).fingerprint == finished.fingerprint


@pytest.mark.parametrize(
    ("params", "other", "named"),
    [
        ({"depth": -1}, {}, ["row.depths", "transformer.depth: None there, -1 here"]),
        ({"image_size": 64}, {}, ["row.ingredients[0].input.size: 32 there, 64 here"]),
        ({"precision": "bfloat16"}, {}, ["row.ingredients[0].arithmetic.precision"]),
        ({}, {"rows_per_shard": 6}, ["rows_per_shard: 5 there, 6 here"]),
        ({}, {"dtype": "float16"}, ["row.dtype: 'float32' there, 'float16' here"]),
        ({}, {"images": ["/a/b.png"]}, ["images.n_rows: 24 there, 1 here", "images.digest"]),
    ],
)
def test_another_job_in_the_folder_is_an_error_that_names_what_differs(
    finished, table, params, other, named
):
    images = other.pop("images", table) if "images" in other else table
    with pytest.raises(ValueError, match="holds another job") as raised:
        ExtractionJob(
            small_transformer(**params), images, finished.out, **{"rows_per_shard": 5, **other}
        )
    for text in named:
        assert text in str(raised.value)


def test_one_value_that_was_carried_makes_another_job(finished, table):
    import pyarrow

    labels = table["label"].to_pylist()
    other = table.set_column(0, "label", pyarrow.array(["else", *labels[1:]]))
    with pytest.raises(ValueError, match=r"images\.digest"):
        make(other, finished.out)


def test_a_worker_whose_code_computes_other_rows_refuses(table, tmp_path, monkeypatch):
    from sktransfer.extraction import _feature_extractor

    job = make(table, tmp_path / "job")
    monkeypatch.setattr(
        _feature_extractor, "library_versions", lambda: {"torch": "1.0", "pillow": "1.0"}
    )
    with pytest.raises(ValueError, match=r"libraries\.torch: .* there, '1.0' here"):
        ExtractionJob.open(job.out).run_shard(0)


def test_a_record_that_was_changed_is_not_read(table, tmp_path):
    job = make(table, tmp_path / "job")
    record = Path(job.out) / "job.json"
    record.write_text(record.read_text().replace('"rows_per_shard": 5', '"rows_per_shard": 6'))
    with pytest.raises(ValueError, match="was changed"):
        ExtractionJob.open(job.out)


def test_job_json_is_plain_and_has_what_was_auto(table, tmp_path):
    transformer = PretrainedFeatureTransformer("mini", image_size=np.int64(32), depth=(-1, None))
    job = ExtractionJob(transformer, table, tmp_path / "job")
    record = json.loads((tmp_path / "job" / "job.json").read_text())
    assert record["transformer"]["precision"] in ("float32", "bfloat16")
    assert record["transformer"]["device"] in ("cpu", "cuda", "mps")
    assert record["transformer"]["depth"] == [-1, None]
    assert job.transformer.precision == record["transformer"]["precision"]
    assert transformer.precision == "auto"
    assert pickle.loads(pickle.dumps(job)).fingerprint == job.fingerprint


def test_a_backbone_that_is_a_file_travels_with_the_job(table, mini_file, tmp_path):
    copy = tmp_path / "network.safetensors"
    shutil.copy(mini_file, copy)
    transformer = PretrainedFeatureTransformer(str(copy), image_size=32, precision="float32")
    job = ExtractionJob(transformer, table, tmp_path / "job", rows_per_shard=30)
    copy.unlink()
    ExtractionJob.open(job.out).run()
    assert load_rows(job.out, on_error="nan").row.shape == (24, 256)


def test_a_file_that_is_not_of_the_folder_is_not_read(table, tmp_path):
    from sktransfer.jobs._plan import without_files

    job = make(table, tmp_path / "job")
    for file in ("files/../../secret.safetensors", "/secret.safetensors", "files/", None):
        params = dict(job._record.transformer, backbone={"file": file})
        with pytest.raises(ValueError, match="none of a job's folder"):
            without_files(params, job._folder)
    with pytest.raises(ValueError, match="no parameter 'backbone'"):
        without_files({}, job._folder)


def test_float16_rounds_rows_and_a_value_beyond_its_range_is_an_error(table, tmp_path, monkeypatch):
    from sktransfer.jobs import _plan

    exact = small_transformer(feature_cache=None).fit_transform(table["path"].to_pylist()[:4])
    extract = _plan.RowPlan.extract

    def too_large(*args, **kwargs):
        extraction = extract(*args, **kwargs)
        extraction.values[1, 7] = 1e5
        return extraction

    monkeypatch.setattr(_plan.RowPlan, "extract", too_large)
    job = make(table.slice(0, 4), tmp_path / "job", dtype="float16")
    assert job.run().n_failures == 1
    rows = load_rows(job.out, on_error="nan")
    assert rows.row.dtype == np.float16
    assert np.isnan(rows.row[1]).all()
    assert "float16 can't hold" in rows.error[1]
    kept = [0, 2, 3]
    np.testing.assert_allclose(rows.row[kept], exact[kept], rtol=1e-3, atol=1e-6)


def test_relative_paths_are_those_of_the_folder_in_which_the_job_was_made(
    shapes, tmp_path, monkeypatch
):
    monkeypatch.chdir(Path(shapes[0][0]).parent)
    job = make([Path(path).name for path in shapes[0][:3]], tmp_path / "job")
    monkeypatch.chdir(tmp_path)
    assert ExtractionJob.open(job.out).run().n_failures == 0
    assert load_rows(job.out).path.tolist() == [Path(path).name for path in shapes[0][:3]]


def test_status_counts_and_prints_from_any_process(table, tmp_path):
    job = make(table, tmp_path / "job")
    assert job.status().images_per_second is None
    assert job.status().seconds_left is None
    job.run_shard(1)
    status = ExtractionJob.open(job.out).status()
    assert (status.n_shards_done, status.n_images_done, status.n_failures) == (1, 5, 1)
    assert status.images_per_second > 0
    assert status.seconds_left > 0
    assert not status.is_complete
    assert "not complete" in repr(status)
    assert "<table>" in status._repr_html_()
    assert job.run().seconds_left == 0


@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_a_shard_that_is_damaged_or_of_another_job_is_named(finished, table, tmp_path, damage):
    job = make(table.slice(0, 5), tmp_path / "job")
    rows = Path(job.out) / "rows" / "0000000.parquet"
    rows.parent.mkdir()
    content = (Path(finished.out) / "rows" / "0000000.parquet").read_bytes()
    rows.write_bytes(content[:-100] if damage == "cut" else content)
    with pytest.raises(ValueError, match=r"0000000\.parquet is (damaged|not shard 0)"):
        job.run()
    assert not (Path(job.out) / "_SUCCESS").exists()


def test_the_command_line_runs_shards_and_the_last_one_closes_the_job(
    finished, table, tmp_path, capsys
):
    from sktransfer.jobs.__main__ import main

    job = make(table, tmp_path / "job")
    file = str(Path(job.out) / "job.json")
    assert main(["run", file, "--shard", "1"]) == 0
    assert main(["run", file, "--shard", "0", "--of", "2"]) == 0
    assert "1 of 5 shards are left" in capsys.readouterr().out
    assert job.status().n_shards_done == 4
    assert main(["run", job.out]) == 0
    assert main(["status", file]) == 0
    assert "complete" in capsys.readouterr().out
    assert digests(job.out) == digests(finished.out)
    with pytest.raises(SystemExit):
        main(["run", file, "--of", "2"])


def test_the_command_line_says_what_is_wrong_with_a_folder_without_a_traceback(tmp_path, capsys):
    from sktransfer.jobs.__main__ import main

    for command in ("run", "status"):
        with pytest.raises(SystemExit) as stopped:
            main([command, str(tmp_path)])
        assert stopped.value.code == 1
        said = capsys.readouterr().err
        assert str(tmp_path) in said
        assert "job.json" in said


def test_a_task_of_an_array_reads_what_shards_say_only_where_it_is_the_last(
    table, tmp_path, monkeypatch, capsys
):
    from sktransfer.jobs.__main__ import main

    job = make(table, tmp_path / "job")
    looked_at = []
    check = _status.check_shards
    monkeypatch.setattr(
        _status, "check_shards", lambda *a: looked_at.append(list(a[-1])) or check(*a)
    )
    assert main(["run", job.out, "--shard", "1", "--of", "2"]) == 0
    assert "3 of 5 shards are left" in capsys.readouterr().out
    assert looked_at == []
    assert main(["run", job.out, "--shard", "0", "--of", "2"]) == 0
    assert looked_at[0] == [0, 1, 2, 3, 4]
    assert "complete" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"rows_per_shard": 0}, ValueError, "rows_per_shard must be at least 1"),
        ({"rows_per_shard": 1.5}, TypeError, "rows_per_shard must be an int"),
        ({"dtype": "int8"}, ValueError, "dtype must be one of"),
        ({"images": []}, ValueError, "at least one"),
        ({"images": [b"bytes"]}, TypeError, r"images\[0\] is of type bytes"),
        ({"images": "images.txt"}, ValueError, "images must be the path"),
        ({"column": "photo"}, ValueError, "column='photo' is not in the manifest"),
        ({"transformer": "mini"}, TypeError, "transformer must be"),
        ({"transformer": small_transformer(pixel_range="fit")}, ValueError, "pixel_range='fit'"),
        ({"out": ""}, TypeError, "out must be"),
    ],
)
def test_what_is_not_allowed_is_named(table, tmp_path, params, error, message):
    params = {
        "transformer": small_transformer(), "images": table, "out": tmp_path / "job", **params
    }  # fmt: skip
    with pytest.raises(error, match=message):
        ExtractionJob(**params)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"engine": "slurm"}, "engine must be one of"),
        ({"n_workers": 2}, "n_workers=2 is for the other engines"),
        ({"cpus_per_worker": 0}, "cpus_per_worker must be at least 1"),
    ],
)
def test_what_run_does_not_allow_is_named(finished, params, message):
    with pytest.raises(ValueError, match=message):
        finished.run(**params)


@pytest.mark.parametrize("shard", [-1, 5])
def test_a_shard_that_is_not_there_is_an_error(finished, shard):
    with pytest.raises(ValueError, match="from 0 to 4"):
        finished.run_shard(shard)


def test_without_pyarrow_the_extra_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"sktransfer\[jobs\]"):
        make(table, tmp_path / "job")


def test_progress_ends_with_all_images(table, tmp_path, capsys):
    make(table, tmp_path / "job").run(verbose=1)
    assert "job: 24 images in" in capsys.readouterr().err
    make(table, tmp_path / "other").run(verbose=-1)
    assert capsys.readouterr().err == ""


def forged(job, **changes):
    """Write another job.json whose fingerprint is that of its content."""
    from dataclasses import replace

    record = replace(job._record, **changes)
    (Path(job.out) / "job.json").write_bytes(record.to_json())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"manifest": "../other/"}, "manifest is '../other/'"),
        ({"manifest": "manifest-00000000/../"}, "manifest is "),
        ({"rows_per_shard": 0}, "rows_per_shard is 0"),
        ({"rows_per_shard": "5"}, "rows_per_shard is '5'"),
        ({"images": {"n_rows": 2**62, "digest": "", "relative_to": None}}, r"images\.n_rows is"),
        ({"images": {"n_rows": 5}}, "can't be read"),
    ],
)
def test_a_record_that_no_job_writes_is_named_and_not_followed(table, tmp_path, changes, named):
    job = make(table, tmp_path / "job")
    forged(job, **changes)
    with pytest.raises(ValueError, match=named):
        ExtractionJob.open(job.out)


def test_a_record_of_many_brackets_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "job.json").write_text("[" * 1_000_000)
    with pytest.raises(ValueError, match=r"job\.json can't be read"):
        ExtractionJob.open(tmp_path)


def test_a_closed_job_without_one_of_its_shards_is_not_complete(table, tmp_path):
    job = make(table, tmp_path / "job")
    assert job.run().is_complete
    (tmp_path / "job" / "rows" / "0000001.parquet").unlink()
    assert not job.status().is_complete
    assert "not complete" in repr(job.status())
    assert job.run().is_complete


@pytest.mark.parametrize("closed", [True, False])
def test_a_shard_of_another_job_is_not_read_even_when_the_job_was_closed(
    finished, table, tmp_path, closed
):
    job = make(table.slice(5, 5), tmp_path / "job")
    job.run()
    if not closed:
        (tmp_path / "job" / "_SUCCESS").unlink()
    shutil.copy(Path(finished.out) / "rows" / "0000000.parquet", tmp_path / "job" / "rows")
    with pytest.raises(ValueError, match="not shard 0 of this job"):
        load_rows(job.out)


@pytest.mark.parametrize("facts", ["[]", "{", "[" * 100_000, '{"failures": -1}'])
def test_a_shard_that_says_nonsense_of_itself_is_named(table, tmp_path, facts):
    from pyarrow import parquet

    job = make(table.slice(0, 2), tmp_path / "job")
    job.run()
    path = tmp_path / "job" / "rows" / "0000000.parquet"
    rows = parquet.read_table(path)
    parquet.write_table(rows.replace_schema_metadata({"sktransfer": facts}), path)
    with pytest.raises(ValueError, match=r"0000000\.parquet is not shard 0"):
        ExtractionJob.open(job.out).status()


def test_a_shard_without_a_column_is_damaged_and_has_no_rows_of_null(table, tmp_path):
    from pyarrow import parquet

    job = make(table.slice(0, 2), tmp_path / "job")
    job.run()
    path = tmp_path / "job" / "rows" / "0000000.parquet"
    rows, metadata = parquet.read_table(path), parquet.read_metadata(path).metadata
    parquet.write_table(rows.drop_columns("row").replace_schema_metadata(metadata), path)
    with pytest.raises(ValueError, match="has no column 'row'"):
        load_rows(job.out)


def test_a_disk_that_fails_is_not_taken_for_a_damaged_shard(table, tmp_path, monkeypatch):
    from pyarrow import parquet

    def fail(*_):
        raise OSError(5, "Input/output error")

    job = make(table.slice(0, 2), tmp_path / "job")
    job.run()
    monkeypatch.setattr(parquet, "read_metadata", fail)
    with pytest.raises(OSError, match="Input/output error"):
        ExtractionJob.open(job.out).status()


def test_a_job_made_anew_in_its_folder_is_opened_anew_by_a_worker(table, tmp_path):
    first = make(table.slice(0, 2), tmp_path / "job")
    first.run()
    shutil.rmtree(first.out)
    again = make(table.slice(0, 2), tmp_path / "job")
    assert again.fingerprint == first.fingerprint
    assert again.run().is_complete


def test_what_is_left_aside_after_a_job_was_closed_is_removed_by_the_next_run(table, tmp_path):
    job = make(table.slice(0, 2), tmp_path / "job")
    job.run()
    left = tmp_path / "job" / "rows" / ".0000000.parquet.00.tmp"
    left.write_bytes(b"half")
    speed = job.status().images_per_second
    assert job.run().images_per_second == speed  # nothing was started
    assert not left.exists()


def test_a_manifest_that_breaks_off_leaves_no_parts(tmp_path):
    import pyarrow

    late = pyarrow.chunked_array([["a.png"] * 3, [None, "b.png"]])
    table = pyarrow.table({"path": late, "n": pyarrow.array(range(5))})

    class Broken(list):
        def __getitem__(self, item):
            if item.start:
                raise KeyboardInterrupt
            return list.__getitem__(self, item)

    with pytest.raises(KeyboardInterrupt):
        make(Broken(["a.png"] * (2**16 + 1)), tmp_path / "job", rows_per_shard=2**15)
    assert os.listdir(tmp_path / "job") == []
    assert make(table, tmp_path / "job").n_images == 5


def test_a_shard_that_there_is_not_is_no_success_of_the_command_line(table, tmp_path, capsys):
    from sktransfer.jobs.__main__ import main

    job = make(table.slice(0, 2), tmp_path / "job")
    with pytest.raises(SystemExit):
        main(["run", job.out, "--shard", "7"])
    assert "from 0 to 0, got 7" in capsys.readouterr().err
    assert main(["run", job.out, "--shard", "7", "--of", "8"]) == 0  # more tasks than shards
    assert job.status().n_shards_done == 0
    with pytest.raises(SystemExit):
        main(["run", job.out, "--n-jobs", "0"])


def test_integers_of_numpy_are_integers(table, tmp_path):
    job = make(table.slice(0, 2), tmp_path / "job", rows_per_shard=np.int64(1))
    assert job.run_shard(np.int32(1))
