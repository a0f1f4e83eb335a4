import io
import struct
import threading
import warnings
import zlib

import pytest
from PIL import Image

from sktransfer.images._decode import decode_bytes, quiet_pillow


def _file_that_pillow_warns_of(encode):
    """An animated PNG that says it has no frames."""
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 9)]
    data = bytearray(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    at = data.index(b"acTL")
    data[at + 4 : at + 8] = bytes(4)
    data[at + 12 : at + 16] = struct.pack(">I", zlib.crc32(data[at : at + 12]))
    return bytes(data)


def test_pillow_s_warnings_do_not_reach_the_user(encode):
    data = _file_that_pillow_warns_of(encode)
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(data)).close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert decode_bytes(data).shape == (8, 8, 3)
    assert caught == []


def test_the_filters_are_as_before_when_all_threads_are_done():
    before = list(warnings.filters)
    inside = threading.Barrier(3)
    left = threading.Barrier(2)

    def first():
        with quiet_pillow():
            inside.wait()
        left.wait()

    def second():
        with quiet_pillow():
            inside.wait()
            left.wait()  # ends after the first has

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait()
    assert len(warnings.filters) == len(before) + 1
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_other_warnings_are_heard_while_an_image_is_decoded():
    with quiet_pillow(), pytest.warns(UserWarning, match="of the user"):
        warnings.warn("of the user", UserWarning, stacklevel=1)


def test_a_filter_that_another_block_put_back_is_taken_away_next_time():
    before = list(warnings.filters)
    quiet = quiet_pillow()
    quiet.__enter__()
    with warnings.catch_warnings():  # keeps a copy of the list with our filter in it
        quiet.__exit__(None, None, None)
    assert len(warnings.filters) == len(before) + 1
    with quiet_pillow():
        pass
    assert warnings.filters == before
