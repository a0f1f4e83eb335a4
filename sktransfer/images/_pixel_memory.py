"""The memory of a Pillow image as an array, without a copy.

Pillow's own way to give pixels away, ``tobytes``, copies them while it holds the interpreter's
lock. Here the memory is lent by Arrow's C interface, which Pillow documents, so that it may be
read without that lock.
"""

import ctypes

import numpy as np
from PIL import Image


class _ArrowArray(ctypes.Structure):
    """The struct of Arrow's C data interface."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

# a function of its own: the attribute of `pythonapi` is one for all who set its types
_address_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Memory:
    """What numpy makes an array of; it holds the capsule, which holds the image's memory."""

    def __init__(self, address: int, shape: tuple[int, ...], owner: object):
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": shape,
            "data": (address, False),
        }
        self._owner = owner


def pixel_memory(image: Image.Image) -> np.ndarray | None:
    """Return the memory of a loaded image of mode RGB, uint8 (H, W, 4), or None.

    The fourth value of a pixel means nothing. None where the memory is in several parts, as that
    of more than 4 million pixels is. It lives as long as the array; nobody else may write to it.

    The image must be one that Pillow decoded or made here, of one pixel at least. Of one that was
    made of another's memory (`Image.fromarrow`) Pillow before 13 reads a null pointer, and of one
    whose rows are aligned it lends the memory before the first row.
    """
    width, height = image.size
    if image.mode != "RGB" or Image.core.get_alignment() != 1:
        return None
    try:
        capsule = image.__arrow_c_array__()[1]
    except ValueError:  # which Pillow documents for several parts
        return None
    array = _ArrowArray.from_address(_address_in(capsule, b"arrow_array"))
    if array.length != width * height:
        return None
    address = array.children[0].contents.buffers[1]
    return np.asarray(_Memory(address, (height, width, 4), capsule))
