"""The stages of an estimator in scikit-learn's diagram: what is frozen, trained and not used."""

import numbers
import os
from typing import Any

from sklearn.base import BaseEstimator

from ._stage_picture import Bar, stage_picture
from ._stage_table import StageTable

# The content of the box of an estimator; scikit-learn 1.6 has no such method
_BOX_HAS_CONTENT = hasattr(BaseEstimator, "_get_params_html")


class StageDiagramMixin:
    """Show the cut network in scikit-learn's diagram.

    Before ``BaseEstimator`` in the bases. `fit` sets ``stages_``, and before that the picture shows
    what the parameters say; nothing is loaded for it. It stands in the box of the estimator, alone
    and in pipelines and searches. Of scikit-learn 1.6, whose boxes have no content, it stands
    below the diagram, where the estimator is alone.
    """

    # of the estimator
    backbone: Any
    image_size_: int
    stages_: StageTable

    # the parameter that says where the network is cut; None where there is no such choice
    _cut_parameter: str | None = None
    _role_after_the_cut = "trained"

    def _get_params_html(self, *args, **kwargs):
        # scikit-learn writes the HTML of what this returns into the box. Should that come
        # about in another way some day, the box is as scikit-learn makes it.
        params = super()._get_params_html(*args, **kwargs)  # type: ignore[misc]
        table = getattr(params, "_html_repr", None)
        if table is not None:
            params._html_repr = lambda: self._stages_html() + table()
        return params

    def _repr_html_inner(self):
        inner = super()._repr_html_inner()  # type: ignore[misc]  # of BaseEstimator
        return inner if _BOX_HAS_CONTENT else inner + self._stages_html()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]  # of BaseEstimator
        if "text/html" in bundle and not _BOX_HAS_CONTENT:
            bundle["text/html"] += self._stages_html()
        return bundle

    def _sk_visual_block_(self):
        caption = self.stages_.summary() if hasattr(self, "stages_") else None
        return visual_block("single", self, name_caption=caption)

    def _stages_html(self):
        if hasattr(self, "stages_"):
            return self._fitted_stages()
        return "" if self._cut_parameter is None else self._planned_stages(self._cut_parameter)

    def _fitted_stages(self):
        bars = [Bar(row.name, row.role, row.width, row.n_params) for row in self.stages_]
        cuts = {}
        if self._cut_parameter is not None:
            depths = getattr(self, f"{self._cut_parameter}_")
            first, *others = depths if isinstance(depths, tuple) else (depths,)
            cuts = {first: f"depth {first}", **{depth: str(depth) for depth in others}}
        caption = f"{self._backbone_name()}, {self.image_size_} pixels"
        return stage_picture(bars, cuts, caption)

    def _planned_stages(self, parameter):
        """Return a picture of what the parameters say."""
        depth, after = getattr(self, parameter), self._role_after_the_cut
        place: int | None = 1  # of the cut
        if depth is None or isinstance(depth, (tuple, list)):
            bars = [Bar("all stages", "frozen")]
        elif not isinstance(depth, numbers.Integral):  # "auto", or what `fit` will refuse
            is_auto = isinstance(depth, str) and depth == "auto"
            bars, place = [Bar("all stages", "cut by recipe" if is_auto else "")], None
        elif depth == 0:
            bars, place = [Bar("all stages", after)], 0
        else:
            bars = [Bar(f"stages[:{depth}]", "frozen"), Bar(f"stages[{depth}:]", after)]
        cuts = {} if place is None else {place: f"{parameter}={depth}"}
        if after == "trained":
            bars.append(Bar("head", "trained"))
        return stage_picture(bars, cuts, f"{self._backbone_name()}, not fitted")

    def _backbone_name(self):
        return os.path.basename(str(self.backbone))


def visual_block(kind, estimators, *, names=None, name_caption=None):
    """Return what scikit-learn draws of an estimator, or of several in one."""
    # Imported here: should it move again, scikit-learn draws the box without the line
    try:
        from sklearn.utils._repr_html.estimator import _VisualBlock
    except ModuleNotFoundError:  # scikit-learn 1.6
        from sklearn.utils._estimator_html_repr import _VisualBlock
    details: Any
    if kind == "single":
        names, details = type(estimators).__name__, str(estimators)
    else:
        details = [str(estimator) for estimator in estimators]
    return _VisualBlock(
        kind, estimators, names=names, name_details=details, name_caption=name_caption
    )
