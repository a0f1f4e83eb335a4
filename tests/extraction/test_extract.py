import io
import re
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sktransfer._spec import BackboneSpec, FittedPlan, InputSpec
from sktransfer.backbones._architecture import NetworkStructure
from sktransfer.backbones._backbone import Backbone
from sktransfer.extraction import _compute, _extract
from sktransfer.extraction._extract import extract
from sktransfer.extraction._feature_extractor import ExtractionPlan
from sktransfer.images import _image_ref
from sktransfer.images._collection import as_images
from sktransfer.runtime import _display, _result_array
from sktransfer.runtime._progress import count_forward_passes
from sktransfer.store._store import open_store

# so that the values of images reach the first stage as they are
INPUT = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1 / 255,) * 3)


class Mean(nn.Module):
    """A "network": the mean of each channel."""

    def forward(self, images):
        return images.float().mean((2, 3))


def plan_of(module=None, *, n_stages=1, pooling="flatten", view=None, device="cpu"):
    """Return a plan for a network of one stage; "flatten" stores the wanted depth alone."""
    module = module or Mean()
    structure = NetworkStructure(stages={"one": ("0",)}, head=())
    spec = BackboneSpec("name", "mean", (), None, "digest", INPUT, ("one",), "", "")
    backbone = Backbone(spec, nn.Sequential(module), structure)
    fitted = FittedPlan(spec, INPUT, (n_stages,), pooling, "float32")
    return ExtractionPlan(backbone, fitted, torch.device(device), view)


def greys(*values):
    return as_images([np.full((8, 8, 3), value, dtype=np.uint8) for value in values])


def test_rows_come_in_the_order_of_the_images_and_equal_images_pass_once():
    values = [5, 3, 5, 9, 3, 3]
    with count_forward_passes() as counter:
        extraction = extract(greys(*values), plan_of(), None, batch_size=2)
    np.testing.assert_array_equal(extraction.values[:, 0], values)
    assert counter.computed == 3


def test_only_what_the_store_lacks_passes(cache):
    store = open_store(cache)
    extract(greys(1, 2, 3), plan_of(), store)
    with count_forward_passes() as counter:
        extraction = extract(greys(3, 4, 2), plan_of(), store)
    np.testing.assert_array_equal(extraction.values[:, 0], [3, 4, 2])
    assert (counter.computed, counter.cache_hits) == (1, 2)


def test_failures_are_listed_with_their_copies_and_the_rest_is_right():
    good = np.full((8, 8, 3), 7, dtype=np.uint8)
    images = as_images([b"broken", good, b"broken", None])
    extraction = extract(images, plan_of(), None)
    assert [failure.position for failure in extraction.failures] == [0, 2, 3]
    np.testing.assert_array_equal(extraction.values[1], 7)


def test_digests_are_those_of_the_content_of_stored_images_and_copies_too(cache, tmp_path):
    paths = []
    for i, value in enumerate([5, 3, 5, 9]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(paths[-1])
    images = as_images([*paths, paths[1]])
    expected = [image.digest() for image in images]
    for store in (None, open_store(cache), open_store(cache)):  # computed, and then looked up
        digests = extract(images, plan_of(), store).digests
        assert [digest.tobytes() for digest in digests] == expected


def test_rows_finished_before_an_interrupt_are_stored(cache, monkeypatch):
    # Ctrl-C reaches the main thread, here while it writes down the third batch
    store, n_put = open_store(cache), []
    put_many = store.put_many

    def interrupted(rows):
        if len(n_put) == 2:
            raise KeyboardInterrupt
        n_put.append(len(rows))
        put_many(rows)

    monkeypatch.setattr(_compute, "_ROWS_AT_ONCE", 1)  # each batch is put
    monkeypatch.setattr(store, "put_many", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(greys(*range(20)), plan_of(), store, batch_size=4)
    monkeypatch.undo()
    with count_forward_passes() as counter:
        extraction = extract(greys(*range(20)), plan_of(), store, batch_size=4)
    assert counter.computed == 20 - 2 * 4
    np.testing.assert_array_equal(extraction.values[:, 0], range(20))


def test_what_another_process_put_meanwhile_is_not_computed_again(cache, monkeypatch):
    store = open_store(cache)
    extract(greys(1, 2, 3, 4), plan_of(), store)
    # this "process" looked before the other had put anything
    monkeypatch.setattr(_extract, "_look_up", lambda *arguments: [])
    with count_forward_passes() as counter:
        extraction = extract(greys(1, 2, 3, 4), plan_of(), store, batch_size=2)
    assert (counter.computed, counter.cache_hits) == (0, 4)
    np.testing.assert_array_equal(extraction.values[:, 0], [1, 2, 3, 4])


@pytest.mark.parametrize("batch_size", [1, 4, 64])  # a batch a core, or all cores on one
def test_the_number_of_torch_s_threads_is_left_as_it_was(batch_size):
    before = torch.get_num_threads()
    extract(greys(*range(9)), plan_of(), None, batch_size=batch_size)
    assert torch.get_num_threads() == before


def test_workers_are_cores_and_use_one_thread_each():
    seen = []

    class Asking(Mean):
        def forward(self, images):
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            return super().forward(images)

    extract(greys(*range(40)), plan_of(Asking()), None, batch_size=4, n_jobs=3)
    assert len({name for name, _ in seen}) <= 3
    assert {count for _, count in seen} == {1}


@dataclass(frozen=True)
class Brighter:
    """A view: each pixel plus a number, and what it was told of the image."""

    by: int
    name: str | None = "brighter"
    seen: dict = field(default_factory=dict, compare=False)

    def key(self):
        return None if self.name is None else f"{self.name} {self.by}"

    def pixels(self, pixels, spec, digest):
        self.seen.setdefault(digest, []).append(pixels.shape)
        size = (3, spec.size, spec.size)
        return torch.full(size, int(pixels[0, 0, 0]) + self.by, dtype=torch.uint8)


def test_a_view_passes_and_is_stored_by_its_name(cache):
    store, images = open_store(cache), greys(1, 2, 1)
    plain = extract(images, plan_of(), store)
    for by in (10, 20):
        view = Brighter(by)
        with count_forward_passes() as counter:
            first = extract(images, plan_of(view=view), store)
            again = extract(images, plan_of(view=Brighter(by)), store)
        assert (counter.computed, counter.cache_hits) == (2, 2)
        np.testing.assert_array_equal(first.values, plain.values + by)
        np.testing.assert_array_equal(again.values, first.values)
        assert set(view.seen) == {image.digest() for image in images}


def test_a_view_without_a_name_is_neither_looked_up_nor_stored(cache):
    store, images = open_store(cache), greys(1, 2, 1)
    for by in (10, 20):
        view = Brighter(by, name=None)
        with count_forward_passes() as counter:
            values = extract(images, plan_of(view=view), store).values
        np.testing.assert_array_equal(values[:, 0], [1 + by, 2 + by, 1 + by])
        assert (counter.computed, counter.cache_hits) == (2, 0)
        assert all(len(shapes) == 1 for shapes in view.seen.values())
    assert len(store) == 0


def test_without_stages_the_activation_is_the_view_in_8_bits_and_no_pass(cache):
    plan = plan_of(nn.Identity(), n_stages=0, pooling=None, view=Brighter(5))
    for _ in range(2):
        with count_forward_passes() as counter:
            values = extract(greys(1, 2), plan, open_store(cache)).values
        assert values.dtype == np.uint8
        assert values.shape == (2, 3, 8, 8)
        np.testing.assert_array_equal(values[:, 0, 0, 0], [6, 7])
        assert counter.computed == 0


@pytest.mark.parametrize("has_view", [False, True])
def test_pixels_are_padded_where_no_view_is_drawn(has_view, monkeypatch):
    asked = []
    decode = _image_ref.decode_bytes

    def noted(data, pixel_range, reserve, padded):
        asked.append(padded)
        pixels = decode(data, pixel_range, reserve, padded)
        assert pixels.shape == (8, 8, 4 if padded else 3)
        return pixels

    file = io.BytesIO()
    Image.new("RGB", (8, 8), (10, 20, 30)).save(file, "PNG")
    monkeypatch.setattr(_image_ref, "decode_bytes", noted)
    view = Brighter(5) if has_view else None
    values = extract(as_images([file.getvalue()]), plan_of(view=view), None).values
    np.testing.assert_allclose(values, [[15, 15, 15] if has_view else [10, 20, 30]], atol=1e-4)
    assert asked == [not has_view]


def test_pixels_need_no_gpu():
    plan = plan_of(nn.Identity(), n_stages=0, pooling=None, device="cuda")
    assert extract(greys(1, 2), plan, None).values[:, 0, 0, 0].tolist() == [1, 2]


def test_a_large_result_is_in_a_file_and_the_same(cache, monkeypatch):
    values = [*range(50), *range(10)]
    expected = extract(greys(*values), plan_of(), None).values
    monkeypatch.setattr(_result_array, "result_budget", lambda: 100)
    for _ in range(2):  # computed, and from the store
        extraction = extract(greys(*values), plan_of(), open_store(cache), batch_size=4)
        assert isinstance(extraction.values, np.memmap)
        np.testing.assert_array_equal(extraction.values, expected)
        chosen = extraction.values[[3, 55, 1]]
        assert type(chosen) is np.ndarray
        np.testing.assert_array_equal(chosen[:, 0], [3, 5, 1])


def test_rows_are_asked_of_the_store_in_bounded_parts(cache, monkeypatch):
    store, asked = open_store(cache), []
    extract(greys(*range(100)), plan_of(), store)
    get_many = store.get_many

    def counted(keys):
        asked.append(len(keys))
        return get_many(keys)

    monkeypatch.setattr(store, "get_many", counted)
    monkeypatch.setattr(_extract, "_BYTES_AT_ONCE", 20 * 3 * 4)  # 20 rows
    extraction = extract(greys(*range(100)), plan_of(), store)
    assert max(asked) == 20
    np.testing.assert_array_equal(extraction.values[:, 0], range(100))


def test_running_batches_at_an_interrupt_are_finished_and_stored(cache):
    class Interrupted(Mean):
        n_calls = 0

        def forward(self, images):
            Interrupted.n_calls += 1
            if Interrupted.n_calls == 4:
                raise KeyboardInterrupt
            return super().forward(images)

    store = open_store(cache)
    with pytest.raises(KeyboardInterrupt), count_forward_passes() as counter:
        extract(greys(*range(40)), plan_of(Interrupted()), store, batch_size=4, n_jobs=2)
    assert len(store) == counter.computed >= 3 * 4
    with count_forward_passes() as counter:
        extract(greys(*range(40)), plan_of(), store, batch_size=4)
    assert counter.computed == 40 - counter.cache_hits <= 40 - 3 * 4


def test_progress_is_shown_when_asked_also_when_all_rows_are_stored(cache, capsys):
    store = open_store(cache)
    extract(greys(1, 2), plan_of(), store)
    assert capsys.readouterr() == ("", "")
    extract(greys(1, 2, 3), plan_of(), store, verbose=1)
    assert re.search(r"backbone: 3 images in .*2 cache hits", capsys.readouterr().err)
    extract(greys(1, 2, 3), plan_of(), store, verbose=1)
    assert re.search(r"backbone: 3 images in .*3 cache hits", capsys.readouterr().err)


def test_progress_is_shown_when_it_takes_long(monkeypatch, capsys):
    class Slow(Mean):
        def forward(self, images):
            time.sleep(0.02)
            return super().forward(images)

    monkeypatch.setattr(_display, "_SECONDS_BEFORE_PROGRESS", 0.1)
    extract(greys(*range(30)), plan_of(Slow()), None, batch_size=1, n_jobs=1)
    assert "backbone" in capsys.readouterr().err
