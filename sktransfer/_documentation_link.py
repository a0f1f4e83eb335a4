"""Links from scikit-learn's diagrams to our reference, where the package says it is published."""

import re
import sys
from functools import cache
from importlib.metadata import metadata
from itertools import takewhile


class DocumentationLinkMixin:
    """Link the diagram of an estimator, and its parameters, to its page in our reference.

    Before ``BaseEstimator`` in the bases. The address is that of the link "Documentation" in
    ``[project.urls]`` of pyproject.toml, as the installed package has it; without one there is
    no link, and of a class that is not public there is none.
    """

    @property
    def _doc_link_module(self):
        # where it is not the first part of the class's module, scikit-learn makes no link
        return "sktransfer" if documentation_url() and _is_public(type(self)) else ""

    @property
    def _doc_link_template(self):
        # the pages that docs/reference.md has made
        return f"{documentation_url()}/api/{{estimator_module}}.{{estimator_name}}.html"


@cache
def documentation_url() -> str | None:
    """Return the address of the site as the installed package has it, or None."""
    for entry in metadata("sktransfer").get_all("Project-URL", []):
        label, _, url = entry.partition(",")
        # in such a label neither case nor punctuation matters
        if re.sub(r"[\W_]", "", label).lower() in ("documentation", "docs"):
            return url.strip().rstrip("/")
    return None


def _is_public(cls: type) -> bool:
    parts = takewhile(lambda part: not part.startswith("_"), cls.__module__.split("."))
    package = sys.modules.get(".".join(parts))
    return cls.__name__ in getattr(package, "__all__", ())
