import numpy as np
import pytest

from sktransfer.store._block import pack, unpack

KEYS = [bytes([i]) * 32 for i in range(3)]


def to_bfloat16(values):
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def read(packed):
    block = unpack(memoryview(packed), verify=True)
    return block.take(range(len(block.list_keys())))


@pytest.mark.parametrize("shape", [(64,), (4, 3, 3), (0,), ()])
def test_rows_of_bfloat16_numbers_take_two_bytes_a_value_and_come_back_as_they_were(shape):
    rng = np.random.default_rng(0)
    rows = [to_bfloat16(np.asarray(rng.standard_normal(shape))) for _ in KEYS]
    packed = pack(KEYS, rows)
    exact = pack(KEYS, [np.asarray(rng.standard_normal(shape), dtype=np.float32) for _ in KEYS])
    name = len("<f4") - len("bf16")
    assert len(exact) - len(packed) == (2 * rows[0].size * len(KEYS) + name if rows[0].size else 0)
    np.testing.assert_array_equal(read(packed), np.stack(rows), strict=True)


def test_infinities_and_nan_of_bfloat16_come_back():
    row = to_bfloat16(np.array([np.inf, -np.inf, np.nan, -0.0, 1e-40]))
    found = read(pack(KEYS[:1], [row]))[0]
    np.testing.assert_array_equal(found.view(np.uint32), row.view(np.uint32))


def test_one_row_that_bfloat16_can_not_hold_keeps_all_of_a_block_exact():
    rows = [np.full(5, value, dtype=np.float32) for value in (1, 2, 1 / 3)]
    np.testing.assert_array_equal(read(pack(KEYS, rows)), np.stack(rows), strict=True)


def test_rows_in_fortran_order_come_back():
    rows = [np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))]
    np.testing.assert_array_equal(read(pack(KEYS[:1], rows))[0], rows[0])
