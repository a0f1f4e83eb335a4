"""Write a copy of a backbone whose batch norms have the statistics of other images."""

import numbers
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params

from .._base import ImageEstimator, raise_failures
from .._feature_transformer import PretrainedFeatureTransformer
from .._spec import FittedPlan
from .._text_table import Table
from ..backbones._registry import load_backbone
from ..backbones._weights import checked_file_to_write, write_backbone_file
from ..runtime import _progress
from ..runtime._device import one_device, resolve_device
from ..runtime._gpu_lock import gpu_lock
from ..runtime._threads import torch_threads_of_a_worker
from ._norm_statistics import NormChange, norms_of, recalibrate


@dataclass(frozen=True, slots=True)
class RecalibratedNorm:
    """How much the statistics of a batch norm have changed.

    Attributes
    ----------
    name : str
        The module's name in the network.
    n_channels : int
        Channels.
    mean_shift : float
        Difference of the means, in deviations of before: its mean over the channels, without
        sign.
    deviation_ratio : float
        Deviation now by the one before: the geometric mean over the channels. 1 is no change.
    """

    name: str
    n_channels: int
    mean_shift: float
    deviation_ratio: float


class Recalibration(Table[RecalibratedNorm]):
    """The batch norms that were recalibrated, in the order in which an image passes them.

    Attributes
    ----------
    path : str
        The backbone file, for ``backbone=``.
    digest : str
        Digest of its weights, by which its rows are told from those of the old weights.
    n_images : int
        Images whose statistics were taken.
    weight : float
        Weight of their statistics, from 0 to 1; the old ones have the rest.
    """

    _record = RecalibratedNorm

    def __init__(
        self,
        records: Sequence[RecalibratedNorm],
        path: str,
        digest: str,
        n_images: int,
        weight: float,
    ):
        super().__init__(records)
        self.path = path
        self.digest = digest
        self.n_images = n_images
        self.weight = weight

    def _headline(self) -> str:
        return (
            f"{len(self)} batch norms, {self.weight:.2f} of the statistics of {self.n_images} "
            f"images: {self.path}"
        )


@validate_params(
    {
        **{
            name: ImageEstimator._parameter_constraints[name]
            for name in (
                "backbone",
                "backbone_params",
                "weights",
                "image_size",
                "image_shape",
                "pixel_range",
                "device",
                "n_jobs",
                "verbose",
            )
        },
        "X_target": "no_validation",
        "path": [str, os.PathLike],
        "n_source": [Interval(numbers.Real, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def recalibrate_backbone(
    backbone,
    X_target,
    path,
    *,
    n_source=128,
    backbone_params=None,
    weights="default",
    image_size=None,
    image_shape=None,
    pixel_range=None,
    device="auto",
    n_jobs=None,
    verbose=0,
):
    """Write a copy of a backbone whose batch norms have the statistics of target images.

    A batch norm subtracts the mean of its channels over the images that the network was trained
    on, and divides by their deviation. On images of another kind (noise, blur, another
    contrast) both are wrong in each layer. Here they are taken from a set of such images,
    without labels, and mixed with the old ones. No other weight is changed.

    Recalibrate once for each domain, from the same backbone, with as many images of each: rows of
    the source from its own file, rows of the target from the other. Only where the classifier
    was trained on images like those of the weights is the backbone itself right for the source.

    The file is a backbone with a digest of its own: rows of the old one in the store stay right,
    and new ones are stored beside them.

    Parameters
    ----------
    backbone : str or path-like
        As in :class:`~sktransfer.PretrainedFeatureTransformer`: a name, or the path of a
        backbone file.
    X_target : sequence of images
        Images of one domain, two at least, of any kind that the estimators take. 32 are a
        beginning. They should have about the shares of classes, and the mix of conditions, of
        the images to come.
    path : str or path-like
        The file to write; its name must end in ``.safetensors``. A file of that name is
        replaced.
    n_source : float, default=128
        The number of target images as which the old statistics count: with n images,
        these have the weight ``n / (n_source + n)``, a fifth for 32. 0 forgets the old
        statistics.
    backbone_params : dict, default=None
        Arguments of the architecture's constructor.
    weights : str, path-like or None, default="default"
        As in :class:`~sktransfer.PretrainedFeatureTransformer`.
    image_size : int, default=None
        Side of the square that the network sees, in pixels, and from now on its own size. None
        is what the weights were trained with. Statistics belong to a size: use the one that
        the rows will have.
    image_shape : tuple of int, default=None
        ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
    pixel_range : tuple of float or "fit", default=None
        The values of arrays that mean black and white.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. ``"auto"`` is a GPU where there is one.
    n_jobs : int, default=None
        Threads that read images. None is one for each core.
    verbose : int, default=0
        As in :class:`~sktransfer.PretrainedFeatureTransformer`.

    Returns
    -------
    recalibration : Recalibration
        A sequence of :class:`RecalibratedNorm`, one for each batch norm, in the order in which
        an image passes them. It prints as a table; ``to_frame()`` is a pandas DataFrame.

    Raises
    ------
    ImageReadError
        When images can't be read; it lists each, with position, path and cause. No file
        is written.
    TypeError, ValueError
        When the type or value of a parameter is not allowed, `X_target` has fewer than two
        images, or the network has no batch norm with statistics.
    FileNotFoundError
        When there is no folder for `path`.
    WeightsError
        When the weights don't fit, are damaged or can't be loaded.

    See Also
    --------
    PseudoLabelClassifier : Works on rows, of networks without batch norms too.

    Notes
    -----
    Each norm gets the moments of all images together, of its inputs as they are once the
    norms before it are recalibrated. In one forward pass that takes all images in one batch;
    where they do not fit, the images pass the layers of a stage once for each of its norms, and the
    activations between two stages are held, in a temporary file where they are large. The
    result is the same to rounding. Arithmetic is in float32, and deterministic.

    Where the classes have other shares in `X_target` than in the images to come,
    the statistics are those of the wrong classes, and rows may get worse than they were; so may
    those of images of several conditions that are recalibrated together.

    References
    ----------
    S. Schneider et al., "Improving robustness against common corruptions by covariate shift
    adaptation", NeurIPS 2020, arXiv 2006.16971.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.domain_adaptation import recalibrate_backbone
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> digits = {"image_shape": (8, 8), "pixel_range": (0, 16)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "digits.safetensors"
    ...     recalibration = recalibrate_backbone("mini", X[:64], path, **digits)
    ...     transformer = PretrainedFeatureTransformer(path, **digits, feature_cache=None)
    ...     rows = transformer.fit_transform(X[:4])
    >>> rows.shape
    (4, 256)
    >>> round(recalibration.weight, 3)
    0.333
    >>> recalibration.digest == transformer.backbone_spec_.digest
    True
    """
    path = checked_file_to_write(path)
    reader = PretrainedFeatureTransformer(
        backbone,
        backbone_params=backbone_params,
        weights=weights,
        image_size=image_size,
        image_shape=image_shape,
        pixel_range=pixel_range,
        n_jobs=n_jobs,
        verbose=verbose,
        feature_cache=None,
    )
    images = reader._validate_images(X_target, reset=True)
    if len(images) < 2:
        raise ValueError(
            "X_target holds one image, whose statistics say little of others; give two at least, "
            "better 32"
        )
    shared, input_spec = reader._load_backbone()
    copied = shared.fresh()
    if not norms_of(copied):
        raise ValueError(
            f"backbone={os.fspath(backbone)!r} has no batch norm with statistics: its layers "
            "normalise each image by itself, and there is nothing to recalibrate. Standardise the "
            "rows of each domain by themselves, as PseudoLabelClassifier does (n_iter=0: that "
            "alone), or choose a network with batch norms, such as 'resnet50'"
        )
    copied.width(len(copied.stages), copied.pooling("auto"), input_spec)  # is the size allowed?
    chosen = one_device(resolve_device(device))
    # after no stage an activation is the image, resized, in 8 bits
    plan = FittedPlan(copied.spec, input_spec, depths=(0,), pooling=None, precision="float32")
    extraction = reader._extract(images, copied, plan, keep=False)
    raise_failures(extraction.failures, len(images))
    with gpu_lock(chosen), torch_threads_of_a_worker():
        changes = recalibrate(copied, extraction.values, float(n_source), chosen)
    _progress.record(computed=len(images))
    spec = copied.spec
    write_backbone_file(
        path,
        copied.model.state_dict(),
        {
            "architecture": spec.architecture,
            "params": dict(spec.params),
            "input": asdict(input_spec),
            "head": False,
            "source": (f"batch norms recalibrated with sktransfer from {spec.name}: {spec.source}"),
            "licence": spec.licence,
            "recalibrated": {
                "from": spec.digest,
                "n_images": len(images),
                "n_source": float(n_source),
            },
        },
    )
    return Recalibration(
        [_record_of(change) for change in changes],
        path,
        load_backbone(path).spec.digest,
        len(images),
        len(images) / (n_source + len(images)),
    )


def _record_of(change: NormChange) -> RecalibratedNorm:
    (mean, new_mean), (deviation, new_deviation) = change.mean, change.deviation
    return RecalibratedNorm(
        change.name,
        len(mean),
        float(np.mean(np.abs(new_mean - mean) / deviation)),
        float(np.exp(np.mean(np.log(new_deviation / deviation)))),
    )
