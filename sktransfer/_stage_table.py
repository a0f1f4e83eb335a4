"""The role of each stage of a backbone: a table for terminals and notebooks."""

import html
from typing import NamedTuple

from torch import nn

from ._text_table import count, table
from .backbones._backbone import Backbone
from .backbones._stages import HEAD, PRE_LOGITS

HEAD_ROW = "(head)"  # in brackets: no stage of the backbone

# Grey borders and inherited colours stand on light and dark pages alike.
_STYLE = """<style>
.sktransfer-stages table {border-collapse: collapse; margin: 0.5em 0;}
.sktransfer-stages caption {caption-side: bottom; text-align: left; padding: 0.4em 0;}
.sktransfer-stages :is(th, td) {
  border-bottom: 1px solid rgba(128, 128, 128, 0.4); padding: 0.2em 1em 0.2em 0.3em;
  text-align: left !important;}
.sktransfer-stages :is(th, td).number {text-align: right !important;}
.sktransfer-stages .trained {font-weight: bold;}
.sktransfer-stages .unused {opacity: 0.6;}
</style>"""


class StageRow(NamedTuple):
    """One stage: name, role, number of parameters, and width of its activation.

    The role is "frozen", "trained" or "unused". The width is the number of channels of a feature
    map or the length of a token, for a head the number of its outputs; None where it is not known.
    """

    name: str
    role: str
    n_params: int
    width: int | None = None


class StageTable(tuple):
    """A tuple of `StageRow` that prints as a table and shows itself in notebooks."""

    def total(self, role: str | None = None) -> int:
        """Return the number of parameters, of all stages or of those with that role."""
        return sum(row.n_params for row in self if role in (None, row.role))

    def summary(self) -> str:
        """Return the totals in one line."""
        roles = dict.fromkeys(row.role for row in self)
        parts = ", ".join(f"{count(self.total(role))} {role}" for role in roles)
        return f"{count(self.total())} parameters: {parts}"

    def __repr__(self) -> str:
        rows = [(row.name, row.role, row.width, count(row.n_params)) for row in self]
        return f"{table(('stage', 'role', 'width', 'parameters'), rows)}\n{self.summary()}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr class="{row.role}"><td>{html.escape(row.name)}</td><td>{row.role}</td>'
            f'<td class="number">{"-" if row.width is None else row.width}</td>'
            f'<td class="number">{count(row.n_params)}</td></tr>'
            for row in self
        )
        return (
            f'{_STYLE}<div class="sktransfer-stages"><table><caption>{self.summary()}</caption>'
            '<thead><tr><th>stage</th><th>role</th><th class="number">width</th>'
            f'<th class="number">parameters</th></tr></thead><tbody>{rows}</tbody></table></div>'
        )


def stage_table(
    backbone: Backbone,
    depth: int,
    *,
    rest: str = "trained",
    pooling: str | None = None,
    head: nn.Module | None = None,
) -> StageTable:
    """Return the stages of a backbone: ``stages[:depth]`` are frozen, the others `rest`.

    `pooling` None is that of "auto". The layers that a network has between its pooling and
    its last linear layer are frozen or trained with the last stage.
    """
    parts: list[tuple[str, str, nn.Module]] = [
        (name, "frozen" if position < depth else rest, stage)
        for position, (name, stage) in enumerate(backbone.stages.items())
    ]
    if backbone.pre_logits is not None:
        role = "frozen" if depth == len(backbone.stages) else rest
        is_read = pooling in (None, HEAD)
        parts.append((PRE_LOGITS, role if is_read else "unused", backbone.pre_logits))
    if head is not None:
        parts.append((HEAD_ROW, "trained", head))
    counted: set[int] = set()
    widths = {**backbone.known_widths, HEAD_ROW: None if head is None else _outputs(head)}
    return StageTable(
        # another estimator may have computed an unused stage; the table does not depend on that
        StageRow(name, role, _size(part, counted), None if role == "unused" else widths.get(name))
        for name, role, part in parts
    )


def _outputs(head: nn.Module) -> int | None:
    """Return the number of outputs of the last linear layer, where there is one."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else None


def _size(part: nn.Module, counted: set[int]) -> int:
    """Count parameters once, also those that stages share."""
    new = {id(parameter): parameter for parameter in part.parameters()}
    size = sum(new[key].numel() for key in new.keys() - counted)
    counted.update(new)
    return size
