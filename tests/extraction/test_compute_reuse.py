import numpy as np
import pytest
import torch

from sktransfer._spec import BackboneSpec, InputSpec
from sktransfer.backbones._stages import Pool
from sktransfer.extraction._compute import StoredActivations
from sktransfer.extraction._feature_extractor import ExtractionPlan
from sktransfer.store._store import open_store

INPUT = InputSpec(32, 32, (0.5,) * 3, (0.5,) * 3)
SPEC = BackboneSpec("b", "b", (), None, "digest", INPUT, ("one", "two"), "", "")
ACTIVATIONS = np.random.default_rng(0).random((3, 4, 5, 5), dtype=np.float32)


def part(pooling):
    module = torch.nn.Identity()
    return ExtractionPlan(module, SPEC, INPUT, 1, pooling, "float32", torch.device("cpu"))


@pytest.fixture
def rows_part():
    """Return the frozen part of rows that are pooled between two stages."""
    rows = part("avg")
    return ExtractionPlan(**{**vars(rows), "before": part(None), "pool": Pool("avg")})


def keys_of(frozen, n=3):
    return [frozen.common_key() + bytes([i]) * 16 for i in range(n)]


def test_rows_are_pooled_from_what_another_kept(rows_part, cache):
    store = open_store(cache)
    store.put_many(dict(zip(keys_of(part(None))[:2], ACTIVATIONS[:2], strict=True)))
    kept, keys = StoredActivations(rows_part, store, 3), keys_of(rows_part)
    rows = kept.rows(keys)
    assert list(rows) == keys[:2]
    np.testing.assert_allclose(rows[keys[1]], ACTIVATIONS[1].mean((1, 2)), rtol=1e-6)


def test_activations_are_kept_by_the_key_of_the_part_before_the_pooling(rows_part, cache):
    kept, keys = StoredActivations(rows_part, open_store(cache), 3), keys_of(rows_part)
    rows = dict(zip(keys, kept.pooled(ACTIVATIONS), strict=True))
    kept_by = kept.to_store(rows, ACTIVATIONS)
    assert list(kept_by) == keys_of(part(None))
    assert [kept.key(key) for key in keys] == list(kept_by)


def test_a_store_that_is_half_full_gets_no_further_activations(rows_part, cache, monkeypatch):
    monkeypatch.setenv("SKTRANSFER_CACHE_LIMIT", "1M")
    store = open_store(cache)
    store.put_many({bytes(32): np.zeros(2**16, dtype=np.float32)})  # a quarter
    n_that_fit = (2**19 - store.size_bytes) // ACTIVATIONS[0].nbytes
    rows = dict.fromkeys(keys_of(rows_part))
    for n, expected in ((n_that_fit, 3), (n_that_fit + 1, 0)):
        kept = StoredActivations(rows_part, open_store(cache), n)
        assert len(kept.to_store(rows, ACTIVATIONS)) == expected


@pytest.mark.parametrize("has_store", [True, False])
def test_nothing_changes_without_a_part_before_or_without_a_store(rows_part, cache, has_store):
    store = open_store(cache) if has_store else None
    frozen = part("avg") if has_store else rows_part
    kept, keys = StoredActivations(frozen, store, 3), keys_of(frozen)
    assert kept.part is frozen
    assert kept.rows(keys) == {}
    assert kept.key(keys[0]) == keys[0]
    assert kept.pooled(ACTIVATIONS) is ACTIVATIONS
    assert kept.to_store(dict.fromkeys(keys), ACTIVATIONS) == {}
