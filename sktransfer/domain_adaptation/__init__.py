"""Domain adaptation: from labelled images of one kind to unlabelled images of another."""

from ._images_from_ids import ImagesFromIds

__all__ = ["ImagesFromIds"]
