import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sktransfer.images._colour import PixelRange, scale_to_8_bit

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.lists(finite, min_size=1))
def test_scaling_warns_of_nothing_whatever_the_numbers(low, high, values):
    low, high = sorted([low, high])
    scaled = scale_to_8_bit(np.array(values), PixelRange(low, high, clip=True))
    assert scaled.dtype == np.uint8
    if high / 2 - low / 2 > 0:
        assert (scaled[np.array(values) <= low] == 0).all()
        assert (scaled[np.array(values) >= high] == 255).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_8_bit_value_survives_the_way_through_floats(dtype):
    values = np.arange(256)
    scaled = scale_to_8_bit((values / 255).astype(dtype), PixelRange(0, 1))
    np.testing.assert_array_equal(scaled, values)


def test_a_range_of_one_value_is_black():
    assert scale_to_8_bit(np.array([5.0, 6.0]), PixelRange(5, 5, clip=True)).tolist() == [0, 0]
