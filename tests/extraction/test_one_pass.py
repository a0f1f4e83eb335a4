"""Each file is read once; what is stored is the row of the very bytes that were decoded."""

import os
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.exceptions import UnreadableImageWarning
from sktransfer.images import _fingerprint, _image_ref

SMALL = {"backbone": "mini", "image_size": 32, "precision": "float32"}


def write(path, value):
    """Write a new file in place of the one of that name, as programs that save do."""
    aside = path.with_suffix(".new")
    Image.new("RGB", (40, 40), (value, 255 - value, value)).save(aside, format="PNG")
    os.replace(aside, path)


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i:03d}.png" for i in range(40)]
    for i, path in enumerate(paths):
        write(path, i)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """Return the paths of the files that are read whole."""
    read, paths, lock = _fingerprint.read_file, [], threading.Lock()

    def counted(path):
        with lock:
            paths.append(path)
        return read(path)

    for module in (_fingerprint, _image_ref):
        monkeypatch.setattr(module, "read_file", counted)
    return paths


@pytest.fixture
def later(monkeypatch):
    """Let a minute pass at once: files are not written a moment ago any more."""
    time_ns = _fingerprint.time.time_ns
    monkeypatch.setattr(_fingerprint.time, "time_ns", lambda: time_ns() + 60 * 10**9)


@pytest.mark.parametrize("n_jobs", [1, 2, 99])  # 99: all read one batch, as for a GPU
@pytest.mark.parametrize("has_store", [True, False])
def test_a_cold_run_reads_each_file_once(paths, cache, reads, later, n_jobs, has_store):
    folder = cache if has_store else None
    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=folder, n_jobs=n_jobs)
    rows = transformer.fit_transform([*paths, *paths[:7]])  # some of them twice
    assert sorted(reads) == sorted(map(str, paths))
    np.testing.assert_array_equal(rows[40:], rows[:7])


def test_a_warm_run_reads_no_file(paths, cache, reads, later):
    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit(paths)
    rows = transformer.transform(paths)
    reads.clear()
    np.testing.assert_array_equal(transformer.transform(paths), rows)
    assert reads == []


def test_files_that_were_written_a_moment_ago_are_looked_at_again(paths, cache, reads):
    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit(paths)
    rows = transformer.transform(paths)
    write(paths[3], 200)
    with count_forward_passes() as counter:
        again = transformer.transform(paths)
    assert counter.computed == 1
    assert np.flatnonzero((rows != again).any(axis=1)).tolist() == [3]


def test_equal_files_under_two_names_pass_once(paths, cache, later):
    copy = paths[0].with_name("copy.png")
    copy.write_bytes(paths[0].read_bytes())
    with count_forward_passes() as counter:
        rows = PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit_transform(
            [*paths, copy]
        )
    assert counter.computed == len(paths)
    np.testing.assert_array_equal(rows[-1], rows[0])


@pytest.mark.parametrize("moment", ["before it is read", "after it was read"])
@pytest.mark.parametrize("has_old_row", [True, False])
def test_a_file_that_is_replaced_in_mid_run_ends_under_its_own_digest(
    paths, cache, later, monkeypatch, moment, has_old_row
):
    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit(paths)
    untouched = paths[5].with_name("untouched.png")
    untouched.write_bytes(paths[5].read_bytes())
    if has_old_row:  # of another depth's pooling, so that the digest is known and the row is not
        PretrainedFeatureTransformer(**SMALL, pooling="max", feature_cache=cache).fit_transform(
            paths
        )
    read, replaced = _image_ref.read_file, []

    def reading(path):
        if path == str(paths[5]) and not replaced:
            replaced.append(path)
            if moment == "before it is read":
                write(paths[5], 250)
                return read(path)
            data = read(path)
            write(paths[5], 250)
            return data
        return read(path)

    monkeypatch.setattr(_image_ref, "read_file", reading)
    transformer.transform(paths)
    assert replaced
    monkeypatch.undo()
    alone = PretrainedFeatureTransformer(**SMALL, feature_cache=None).fit(paths)
    both = [untouched, paths[5]]
    np.testing.assert_allclose(
        transformer.transform(both), alone.transform(both), rtol=1e-5, atol=1e-6
    )


def test_a_lock_is_held_for_one_forward_pass_and_not_for_another_backbone_s(paths, cache):
    from sktransfer.store._store import open_store

    X = paths[:5]
    deep = PretrainedFeatureTransformer(**SMALL, feature_cache=cache).fit(X)
    store = open_store(cache)
    seen, acquire = [], store.key_locks.acquire
    store.key_locks.acquire = lambda keys: seen.append(set(keys)) or acquire(keys)
    try:
        deep.transform(X)
        PretrainedFeatureTransformer(
            **{**SMALL, "image_size": 64}, feature_cache=cache
        ).fit_transform(X)
    finally:
        del store.key_locks.acquire
    assert len(seen[0] | seen[-1]) == 2 * len(X)


@pytest.mark.parametrize("becomes", ["another image", "missing"])
def test_a_copy_of_a_file_that_changes_in_mid_run_keeps_its_own_row(
    paths, cache, later, monkeypatch, becomes
):
    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache, on_error="nan")
    copy = paths[0].with_name("copy.png")
    copy.write_bytes(paths[0].read_bytes())
    X = [*paths[:3], copy]
    # digests are known, and rows of another pooling are not stored
    PretrainedFeatureTransformer(**SMALL, pooling="max", feature_cache=cache).fit_transform(X)
    expected = PretrainedFeatureTransformer(**SMALL, feature_cache=None).fit_transform([copy])
    read = _image_ref.read_file

    def reading(path):
        if path == str(paths[0]):
            write(paths[0], 250) if becomes == "another image" else paths[0].unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(_image_ref, "read_file", reading)
    if becomes == "missing":
        with pytest.warns(UnreadableImageWarning):
            rows = transformer.fit_transform(X)
        assert np.isnan(rows[0]).all()
    else:
        rows = transformer.fit_transform(X)
        assert not np.allclose(rows[0], expected[0], rtol=1e-3)
    np.testing.assert_allclose(rows[3], expected[0], rtol=1e-5, atol=1e-6)


def test_an_image_that_is_another_each_time_it_is_asked_for_is_stored_as_what_was_decoded(cache):
    rng = np.random.default_rng(0)
    seen = []

    class Drawn(Sequence):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if not 0 <= index < 4:
                raise IndexError(index)
            seen.append(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            return seen[-1]

    transformer = PretrainedFeatureTransformer(**SMALL, feature_cache=cache)
    transformer.fit_transform(Drawn())
    alone = PretrainedFeatureTransformer(**SMALL, feature_cache=None).fit(seen)
    np.testing.assert_allclose(
        transformer.transform(seen), alone.transform(seen), rtol=1e-5, atol=1e-6
    )
