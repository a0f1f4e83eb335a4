"""Self-contained HTML pages: one file, which makes no request and runs no script but its own."""

import base64
import hashlib
import html
import os
import re
import tempfile
import webbrowser
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._files import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = "_templates"
_HEIGHT_IN_NOTEBOOKS = 720  # pixels
# Python stands these for the bytes of a file name that is not UTF-8; no page can hold them
_SURROGATES = re.compile("[\ud800-\udfff]")


def render_page(template: str, *, needed_by: str, script: str | None = None, **values: Any) -> str:
    """Return the page that a template of this package makes of values.

    Every value is escaped where it is written, and what is no character becomes U+FFFD. The
    page's security policy allows no request, and no script but the one named here: it names that
    script's digest.

    Parameters
    ----------
    template : str
        Name of a file in ``_templates``, which extends ``page.html``.
    needed_by : str
        Who asks, for the error where jinja2 is not installed.
    script : str, default=None
        Name of a file of JavaScript in ``_templates``. None is a page without a script.
    **values
        What the template writes. A name that it uses and that is not given is an error.
    """
    environment = _environment(needed_by)
    code = None if script is None else _text_of(script)
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src {_digest(code)}"
    )
    page = environment.get_template(template)
    text = page.render(policy=policy, style=_text_of("page.css"), script=code, **values)
    return _SURROGATES.sub("\ufffd", text)


class HtmlPage:
    """Base of the reports that are a page: `html` makes it, the others show or save it."""

    def html(self) -> str:
        """Return the page, one self-contained text of HTML.

        Returns
        -------
        page : str

        Raises
        ------
        ImportError
            When jinja2 is not installed.
        """
        raise NotImplementedError

    def save(self, path: str | os.PathLike) -> None:
        """Write the page to a file.

        Parameters
        ----------
        path : str or path-like
            The file to write. A file of that name is replaced.

        Raises
        ------
        ImportError
            When jinja2 is not installed.
        OSError
            When the file can't be written.
        """
        page = self.html().encode()
        with atomic_write(path) as file:
            file.write(page)

    def open(self) -> str:
        """Show the page in the web browser.

        It is written to a file that only this user can read, in the folder of temporary files.

        Returns
        -------
        path : str
            The file.

        Raises
        ------
        ImportError
            When jinja2 is not installed.
        """
        page = self.html().encode()
        descriptor, path = tempfile.mkstemp(suffix=".html", prefix="sktransfer-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(page)
        webbrowser.open(Path(path).as_uri())
        return path

    def _repr_html_(self) -> str:
        # a frame of its own: neither page changes how the other one looks, or runs its scripts
        return (
            f'<iframe srcdoc="{html.escape(self.html())}" sandbox="allow-scripts" '
            f'title="{type(self).__name__}" loading="lazy" '
            f'style="width: 100%; height: {_HEIGHT_IN_NOTEBOOKS}px; border: 0"></iframe>'
        )


def _environment(needed_by: str) -> "Environment":
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise ImportError(f"{needed_by} needs jinja2: pip install 'sktransfer[report]'") from None
    return _cached_environment()


@cache
def _cached_environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("sktransfer", _TEMPLATES),
        autoescape=True,  # for every template, whatever its name ends in
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text_of(name: str) -> str:
    return files("sktransfer").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _digest(code: str | None) -> str:
    if code is None:
        return "'none'"
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
