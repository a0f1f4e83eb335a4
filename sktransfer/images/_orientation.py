"""Which side of a stored picture is up."""

import numpy as np
from PIL import Image

_TAG = 0x0112  # EXIF Orientation

# How the stored picture becomes upright: swap rows and columns, then reverse the order
# of the rows, then of the columns. Table of EXIF 2.32, section 4.6.5.
_STEPS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8."""
    try:
        value = image.getexif().get(_TAG, 1)
        return value if value in _STEPS else 1
    except Exception:
        # Damaged EXIF makes Pillow raise nearly anything. The picture is still there.
        return 1


def upright_array(size: tuple[int, int], orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an empty upright array, and the view of it with the rows as they are stored.

    What is written to the view stands upright in the array: a large picture is turned
    without another copy.
    """
    swap, reverse_rows, reverse_columns = _STEPS[orientation]
    width, height = size
    shape = (width, height, 3) if swap else (height, width, 3)
    upright = np.empty(shape, dtype=np.uint8)
    stored = upright[:: -1 if reverse_rows else 1, :: -1 if reverse_columns else 1]
    return upright, stored.swapaxes(0, 1) if swap else stored
