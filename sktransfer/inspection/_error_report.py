"""What a classifier gets wrong, and what is wrong with its images: one page of HTML."""

import numbers
from importlib.metadata import version

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._html_page import HtmlPage, render_page
from ..exceptions import ImageReadError
from ..hygiene._reading import images_of
from ._findings import Choices, Findings
from ._pictures import failures_in
from ._predictions import check_classifier, cross_validated, of_fitted, of_given
from ._rows import Rows, reader_of, rows_of

_COMMON = {
    "X": "no_validation",
    "y": "no_validation",  # the labels are checked with the predictions
    "groups": ["array-like", None],
    "images": "no_validation",
    "image_shape": ["array-like", None],
    "pixel_range": [StrOptions({"fit"}), tuple, list, None],
    "title": [str],
    "map_method": [StrOptions({"auto", "pca", "tsne"})],
    "activation_maps": [StrOptions({"auto"}), Interval(numbers.Integral, 0, None, closed="left")],
    "n_listed": [Interval(numbers.Integral, 1, None, closed="left")],
    "max_pictures": [Interval(numbers.Integral, 1, None, closed="left")],
    "thumbnail_size": [Interval(numbers.Integral, 16, 512, closed="both")],
    "n_jobs": [numbers.Integral, None],
}


class ErrorReport(HtmlPage):
    """What a classifier gets wrong, as one page that a domain expert can read.

    The page shows the score with its interval, over all and for each class; a confusion
    matrix whose cells open their images; the highest losses; labels that are likely wrong;
    near-duplicates with different labels, and those of which one is predicted right and
    one wrong; calibration; the score against size, sharpness and brightness; a map of the
    images; and where the network looked. It is one file, which loads nothing and sends
    nothing.

    Use :meth:`from_cv`, :meth:`from_estimator` or :meth:`from_predictions`.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The classes, in the order of the columns of `probabilities`.
    y_true, y_pred : ndarray of shape (n_images,)
        Labels, and most probable classes.
    probabilities : ndarray of shape (n_images, n_classes), float64
        Of each class, by models that were not fitted on the image (`from_cv`), or by the
        one that was given.
    folds : ndarray of shape (n_images,), int, or None
        The fold in which each image was tested, with `from_cv`.
    losses : ndarray of shape (n_images,), float64
        Log loss of each image.
    accuracy, balanced_accuracy : Score
        With the fields ``value``, ``low``, ``high`` (an interval of 95 %) and ``n``.
    calibration_error : float
        Expected calibration error, over bins of equally many images.
    label_issues : LabelIssues
        Labels that are likely wrong, as those of
        :func:`~sktransfer.hygiene.label_issues`, which are found here in the
        probabilities and the rows of this report.
    doubtful_labels : tuple of LabelIssue
        The labels that the page lists: those of `label_issues` that are likeliest wrong,
        and where these are fewer than `n_listed`, those with the next lowest scores for
        which another class has more support.
    duplicates : Duplicates
        All sets of near-duplicates, as those of
        :func:`~sktransfer.hygiene.near_duplicates`.

    See Also
    --------
    sktransfer.hygiene.label_issues : Labels that are likely wrong, without a classifier.
    sktransfer.hygiene.near_duplicates : Near-duplicates alone.
    sktransfer.hygiene.check_images : Images that can't be read, or show nothing.

    Notes
    -----
    The rows for the map, for near-duplicates and for the votes of neighbours on labels are
    those of the first :class:`~sktransfer.PretrainedFeatureTransformer` within the
    estimator. Of fine-tuned networks they are the pooled activations after the frozen
    stages, which are the same in every fold. They are stored by the time they are asked
    for: with a store, no image passes a frozen network again. Other estimators have no
    rows; the logarithms of the probabilities take their place.

    Each image is read once more, in threads, for its thumbnail, its quality and its hash.
    1,000 photographs take about 3 MB.

    The interval of the accuracy is Wilson's, and with groups made of resampled groups. It
    says how the score varies over images; not how it varies over trainings.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sktransfer import PretrainedFeatureTransformer
    >>> from sktransfer.inspection import ErrorReport
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> X, y = X[:90], y[:90]
    >>> y[7] = (y[7] + 1) % 3
    >>> network = PretrainedFeatureTransformer(
    ...     "mini", image_shape=(8, 8), pixel_range=(0, 16), feature_cache=None
    ... )
    >>> pipeline = make_pipeline(network, LogisticRegression(max_iter=1000))
    >>> report = ErrorReport.from_cv(pipeline, X, y, cv=3, map_method="pca")
    >>> report.label_issues[0].position
    7
    >>> report.save("report.html")  # doctest: +SKIP
    """

    def __init__(self, findings, about):
        # private: what the three constructors share
        self._findings, self._about = findings, about
        predictions = findings.predictions
        self.classes = predictions.classes
        self.y_true = self.classes[findings.labels]
        self.y_pred = self.classes[findings.predicted]
        self.probabilities, self.folds = predictions.probabilities, predictions.folds
        self.losses = findings.losses
        self.accuracy = findings.accuracy
        self.balanced_accuracy = findings.balanced_accuracy
        self.calibration_error = findings.calibration_error
        self.label_issues = findings.label_issues
        self.doubtful_labels = findings.doubtful
        self.duplicates = findings.duplicates

    @classmethod
    @validate_params(
        {
            **_COMMON,
            "cls": "no_validation",
            "estimator": "no_validation",
            "cv": ["cv_object"],
            "params": [dict, None],
        },
        prefer_skip_nested_validation=True,
    )
    def from_cv(
        cls,
        estimator,
        X,
        y,
        *,
        cv=5,
        groups=None,
        params=None,
        images=None,
        image_shape=None,
        pixel_range=None,
        title="Error report",
        map_method="auto",
        activation_maps="auto",
        n_listed=20,
        max_pictures=1000,
        thumbnail_size=112,
        n_jobs=None,
    ):
        """Report on predictions by cross-validation: no model was fitted on what it predicts.

        Parameters
        ----------
        estimator : classifier
            With ``predict_proba``. It is cloned and fitted for each fold.
        X : sequence of images
            Any kind that the estimators take and scikit-learn can slice.
        y : array-like of shape (n_images,)
            Labels of classes, one an image.
        cv : int, splitter, iterable of (train, test) or None, default=5
            Folds that test each image once. An int is the number of folds, in the
            proportions of the classes, shuffled; with `groups`, no group crosses them.
            None is 5.
        groups : array-like of shape (n_images,), default=None
            Images of one group are tested in one fold where `cv` uses groups, do not vote
            on one another's labels, and are resampled together for intervals.
        params : dict, default=None
            What `fit` and the splitter get, such as ``{"sample_weight": w}``, as in
            ``cross_validate``. It is routed where metadata routing is enabled. Scores are
            not weighted.
        images : sequence of images, default=None
            The images, where `X` is a table that holds more than these. None is `X`.
        image_shape : tuple of int, default=None
            ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image. None
            is what the network in `estimator` is given.
        pixel_range : tuple of float or "fit", default=None
            The values of arrays that mean black and white. None is what the network in
            `estimator` is given.
        title : str, default="Error report"
            The title of the page.
        map_method : {"auto", "pca", "tsne"}, default="auto"
            How the map of the images is made of their rows. "auto" is t-SNE for 20 to
            2,000 images, and the first two principal components for others.
        activation_maps : int or "auto", default="auto"
            Of how many of the highest losses it is drawn where the network looked. Of a
            pipeline of a transformer and a linear model, each such image passes the
            network once more: "auto" draws none. Of fine-tuned networks "auto" draws 12,
            from stored activations.
        n_listed : int, default=20
            Most images in each list.
        max_pictures : int, default=1000
            Most images with a thumbnail. Those that are listed and those that are wrong
            come first, others are drawn.
        thumbnail_size : int, default=112
            Pixels of the longer side of thumbnails.
        n_jobs : int, default=None
            Processes that fit folds, as in ``cross_validate``.

        Returns
        -------
        report : ErrorReport

        Raises
        ------
        TypeError
            When `estimator` is no classifier, or has no ``predict_proba``.
        ValueError
            When `y` holds no classes, or several labels an image; `cv` does not test each
            image once; or groups are given twice.
        ImageReadError
            Lists every image that can't be read, where the estimator raises it.

        Notes
        -----
        The models of all folds are in memory at once.
        """
        check_classifier(estimator)
        if "groups" in (params or {}):
            if groups is not None:
                raise ValueError("pass groups= or params={'groups': ...}, not both")
            params = dict(params)
            groups = params.pop("groups")
        given = X if images is None else images
        # before the fits, which may take hours
        collection = _collection(estimator, given, image_shape, pixel_range, y, groups)
        try:
            predictions = cross_validated(estimator, X, y, cv, groups, params, n_jobs)
        except ImageReadError as error:
            failures = failures_in(collection)
            if not failures:
                raise
            # that of a fold counts positions within its images, and knows no others
            raise ImageReadError(failures, len(collection)) from error
        return cls._made(
            predictions, estimator, given, collection, groups,
            title=title, map_method=map_method, activation_maps=activation_maps,
            n_listed=n_listed, max_pictures=max_pictures, thumbnail_size=thumbnail_size,
            n_threads=None,
        )  # fmt: skip

    @classmethod
    @validate_params(
        {**_COMMON, "cls": "no_validation", "estimator": "no_validation"},
        prefer_skip_nested_validation=True,
    )
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        groups=None,
        images=None,
        image_shape=None,
        pixel_range=None,
        title="Error report",
        map_method="auto",
        activation_maps="auto",
        n_listed=20,
        max_pictures=1000,
        thumbnail_size=112,
        n_jobs=None,
    ):
        """Report on predictions of a fitted classifier.

        On the images that it was fitted on, the scores are too good, and few labels look
        wrong: take others, or :meth:`from_cv`.

        Parameters
        ----------
        estimator : classifier
            Fitted, with ``predict_proba``.
        X : sequence of images
            Any kind that the estimators take.
        y : array-like of shape (n_images,)
            Labels of classes that the classifier knows, one an image.
        groups : array-like of shape (n_images,), default=None
            Images of one group do not vote on one another's labels, and are resampled
            together for intervals.
        images : sequence of images, default=None
            The images, where `X` is a table that holds more than these. None is `X`.
        image_shape : tuple of int, default=None
            As in :meth:`from_cv`.
        pixel_range : tuple of float or "fit", default=None
            As in :meth:`from_cv`.
        title : str, default="Error report"
            The title of the page.
        map_method : {"auto", "pca", "tsne"}, default="auto"
            As in :meth:`from_cv`.
        activation_maps : int or "auto", default="auto"
            As in :meth:`from_cv`.
        n_listed : int, default=20
            Most images in each list.
        max_pictures : int, default=1000
            As in :meth:`from_cv`.
        thumbnail_size : int, default=112
            Pixels of the longer side of thumbnails.
        n_jobs : int, default=None
            Threads that read images. None is one for each core.

        Returns
        -------
        report : ErrorReport

        Raises
        ------
        NotFittedError
            When `estimator` is not fitted.
        TypeError, ValueError
            As in :meth:`from_cv`; and when `y` has a class that the classifier does not
            know.
        ImageReadError
            Lists every image that can't be read, where the estimator raises it.
        """
        check_classifier(estimator)
        given = X if images is None else images
        collection = _collection(estimator, given, image_shape, pixel_range, y, groups)
        predictions = of_fitted(estimator, X, y)
        return cls._made(
            predictions, estimator, given, collection, groups,
            title=title, map_method=map_method, activation_maps=activation_maps,
            n_listed=n_listed, max_pictures=max_pictures, thumbnail_size=thumbnail_size,
            n_threads=n_jobs,
        )  # fmt: skip

    @classmethod
    @validate_params(
        {
            **{name: rule for name, rule in _COMMON.items() if name not in (
                "images", "activation_maps")},
            "cls": "no_validation",
            "y_proba": ["array-like"],
            "classes": ["array-like", None],
            "rows": ["array-like", None],
        },
        prefer_skip_nested_validation=True,
    )  # fmt: skip
    def from_predictions(
        cls,
        X,
        y,
        y_proba,
        *,
        classes=None,
        rows=None,
        groups=None,
        image_shape=None,
        pixel_range=None,
        title="Error report",
        map_method="auto",
        n_listed=20,
        max_pictures=1000,
        thumbnail_size=112,
        n_jobs=None,
    ):
        """Report on given probabilities, of whatever model.

        Parameters
        ----------
        X : sequence of images
            Any kind that the estimators take.
        y : array-like of shape (n_images,)
            Labels of classes, one an image.
        y_proba : array-like of shape (n_images, n_classes)
            Probabilities of the classes, by models that were not fitted on the image.
        classes : array-like of shape (n_classes,), default=None
            The classes of the columns. None is the sorted labels.
        rows : array-like of shape (n_images, n_features), default=None
            Features of the images, for the map, for near-duplicates and for the votes of
            neighbours. None is the logarithms of the probabilities.
        groups : array-like of shape (n_images,), default=None
            As in :meth:`from_estimator`.
        image_shape : tuple of int, default=None
            ``(H, W)`` or ``(H, W, C)``: how a row of a 2-D array is read as an image.
        pixel_range : tuple of float or "fit", default=None
            The values of arrays that mean black and white.
        title : str, default="Error report"
            The title of the page.
        map_method : {"auto", "pca", "tsne"}, default="auto"
            As in :meth:`from_cv`.
        n_listed : int, default=20
            Most images in each list.
        max_pictures : int, default=1000
            As in :meth:`from_cv`.
        thumbnail_size : int, default=112
            Pixels of the longer side of thumbnails.
        n_jobs : int, default=None
            Threads that read images. None is one for each core.

        Returns
        -------
        report : ErrorReport

        Raises
        ------
        ValueError
            When `y` holds no classes, `y_proba` no probabilities of these, or `rows` does
            not have a row for each image.
        """
        collection = _collection(None, X, image_shape, pixel_range, y, groups)
        predictions = of_given(y, y_proba, classes)
        if rows is not None:
            values = np.asarray(rows, dtype=np.float32)
            if values.ndim != 2 or len(values) != len(predictions.labels):
                raise ValueError(
                    f"rows must have a row for each of the {len(predictions.labels)} images, got "
                    f"the shape {values.shape}"
                )
            rows = Rows(values, "rows that were given", True)
        return cls._made(
            predictions, None, X, collection, groups, rows=rows,
            title=title, map_method=map_method, activation_maps=0, n_listed=n_listed,
            max_pictures=max_pictures, thumbnail_size=thumbnail_size, n_threads=n_jobs,
        )  # fmt: skip

    @classmethod
    def _made(cls, predictions, estimator, given, collection, groups, rows=None, **choices):
        if groups is not None:
            groups = np.unique(column_or_1d(groups), return_inverse=True)[1]
        if rows is None:
            rows = rows_of(estimator, given, predictions)
        chosen = Choices(groups=groups, **choices)
        about = (
            "Predictions that were given." if estimator is None else _about(estimator, predictions)
        )
        return cls(Findings(predictions, collection, given, rows, chosen), about)

    def html(self):
        """Return the page, one self-contained text of HTML.

        Returns
        -------
        page : str

        Raises
        ------
        ImportError
            When jinja2 is not installed.
        """
        from ._error_page import page_values

        made_with = {name: version(name) for name in ("sktransfer", "scikit-learn", "torch")}
        return render_page(
            "error_report.html",
            needed_by="ErrorReport",
            script="error_report.js",
            made_with=made_with,
            **page_values(self._findings, self._about),
        )

    def to_frame(self):
        """Return what is known of each image as a pandas DataFrame, one row each.

        Returns
        -------
        frame : DataFrame
            With the columns ``position``, ``source``, ``label``, ``predicted``, ``right``,
            ``probability`` (of the label), ``confidence`` (probability of what is
            predicted), ``loss``, ``fold``, ``label_score`` (the lower, the likelier the
            label is wrong), ``suggested`` (the class of a label that is likely wrong),
            ``duplicates`` (a number for each set), ``width``, ``height``, ``sharpness``
            and ``brightness``.

        Raises
        ------
        ImportError
            When pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install 'sktransfer[report]'") from None
        n = len(self.y_true)
        suggested = np.full(n, None, dtype=object)
        for issue in self.label_issues:
            suggested[issue.position] = issue.suggested
        columns = {
            "position": np.arange(n),
            "source": self._findings.sources,
            "label": self.y_true,
            "predicted": self.y_pred,
            "right": self.y_true == self.y_pred,
            "probability": self.probabilities[np.arange(n), self._findings.labels],
            "confidence": self.probabilities.max(axis=1),
            "loss": self.losses,
            "fold": np.full(n, -1) if self.folds is None else self.folds,
            "label_score": self.label_issues.scores,
            "suggested": suggested,
            "duplicates": self.duplicates.labels,
            **{
                name: [np.nan if p is None else getattr(p, name) for p in self._findings.pictures]
                for name in ("width", "height", "sharpness", "brightness")
            },
        }
        if self.folds is None:
            del columns["fold"]
        return pandas.DataFrame(columns)

    def __repr__(self):
        n, accuracy = len(self.y_true), self.accuracy
        n_wrong = int((self.y_true != self.y_pred).sum())
        return (
            f"ErrorReport: {n} images, accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to "
            f"{accuracy.high:.3f}), {n_wrong} wrong, {len(self.label_issues)} labels likely "
            "wrong; save('report.html') or open() shows it"
        )


def _collection(estimator, given, image_shape, pixel_range, y, groups):
    """Return the images, as many as labels and groups; raise where they are not."""
    shape, values = reader_of(estimator)
    collection = images_of(
        given,
        shape if image_shape is None else image_shape,
        values if pixel_range is None else pixel_range,
    )
    check_consistent_length(collection, y)
    if groups is not None:
        check_consistent_length(collection, column_or_1d(groups))
    return collection


def _about(estimator, predictions):
    """Return what predicted the images, and how."""
    steps = getattr(estimator, "steps", [(None, estimator)])
    name = " + ".join(type(step).__name__ for _, step in steps)
    if predictions.folds is None:
        return (
            f"{name}, fitted before. If it was fitted on these images, the scores are too good and "
            "few labels look wrong."
        )
    return (
        f"{name}, cross-validated over {len(predictions.models)} folds: each image is predicted by "
        "a model that was not fitted on it."
    )
