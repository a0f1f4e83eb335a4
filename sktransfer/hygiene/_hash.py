"""A perceptual hash: 64 bits that hardly change when an image is saved again.

The signs of the lowest frequencies of the grey image, by the discrete cosine transform
(C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010,
section 3.2.1, there called DCT based). They outlast recompression, another size, and
changes of brightness and contrast; not mirroring, turning and cropping.

ImageHash has this hash too. It would bring PyWavelets along, and takes one Pillow image
at a time where we have arrays; what is left to write with SciPy, which scikit-learn
brings, are the ten lines below.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy.fft import dctn

HASH_BITS = 64
_SIDE = 8  # frequencies in each direction: 8 x 8 bits
_SQUARE = 32  # pixels; four to a period of the highest frequency kept, as in the source
# Rounding to whole grey levels has a standard deviation of 0.29, in pixels and in the
# frequencies alike. What is below seven of them has a sign that says nothing.
_SILENCE = 2.0

# Hashes that are compared at once: 1024 x 4096 products in float32 are 16 MiB, and if
# every pair of them were near, their positions would take 64 MiB and as much again twice.
_ROWS, _COLUMNS = 1024, 4096


def hash_image(pixels: np.ndarray) -> np.ndarray:
    """Return the hash of uint8 pixels (H, W, 3), as 64 values of -1 and 1 in int8."""
    image = Image.fromarray(pixels).convert("L")
    grey = image.resize((_SQUARE, _SQUARE), Image.Resampling.BOX)
    waves = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:_SIDE, :_SIDE].ravel()
    # The first is the mean brightness: that of an even image would be its only bit.
    waves[0] = 0.0
    waves[np.abs(waves) < _SILENCE] = 0.0
    return np.where(waves > np.median(waves[1:]), 1, -1).astype(np.int8)


def near_pairs(hashes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs of rows that differ in at most `max_distance` bits, some at a time.

    All are compared with all, by matrix products of blocks: exact, at a memory that does
    not grow with the number of pairs, and on two cores faster than the trees of
    scikit-learn, which have nothing to prune in 64 dimensions.
    """
    n = len(hashes)
    least = HASH_BITS - 2 * max_distance  # the product of two rows of -1 and 1
    values = hashes.astype(np.float32)
    for top in range(0, n, _ROWS):
        rows = values[top : top + _ROWS]
        for left in range(top, n, _COLUMNS):
            columns = values[left : left + _COLUMNS]
            first, second = np.nonzero(rows @ columns.T >= least)
            first, second = first + top, second + left
            later = second > first
            if later.any():
                yield first[later], second[later]
