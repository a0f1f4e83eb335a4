"""Diagrams link to the reference of the site, as soon as the package says where it is."""

import inspect
import re
import tomllib
from email.message import Message
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer, _documentation_link
from sktransfer.model_selection._pixel_rows import PixelRows

SITE = "https://photographs.example/sktransfer"
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"


@pytest.fixture
def publish(monkeypatch):
    """Return a function: the installed package has these links."""

    def publish(*links):
        message = Message()
        for link in links:
            message["Project-URL"] = link
        monkeypatch.setattr(_documentation_link, "metadata", {"sktransfer": message}.__getitem__)
        _documentation_link.documentation_url.cache_clear()

    yield publish
    _documentation_link.documentation_url.cache_clear()


def public_estimators():
    found = [getattr(sktransfer, name) for name in sktransfer.__all__]
    for module in filter(inspect.ismodule, found):
        found = [*found, *(getattr(module, name) for name in module.__all__)]
    return {cls for cls in found if inspect.isclass(cls) and issubclass(cls, BaseEstimator)}


def pages():
    """Return the names of the pages that the reference has made."""
    module, made = None, set()
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   \w+", line):
            made.add(f"{module}.{line.strip()}.html")
    return made


@pytest.mark.parametrize("link", [f"Documentation, {SITE}", f"docs,{SITE}/"])
def test_every_public_estimator_links_to_its_page(publish, link):
    publish("Source, https://elsewhere.example", link)
    assert len(public_estimators()) > 7
    for cls in public_estimators():
        address = cls.__new__(cls)._get_doc_link()
        assert address.startswith(f"{SITE}/api/"), cls
        assert address.removeprefix(f"{SITE}/api/") in pages()


def test_the_diagram_has_the_link_once_there_is_an_address(publish):
    publish(f"Documentation, {SITE}")
    address = f"{SITE}/api/sktransfer.PretrainedFeatureTransformer.html"
    assert f'href="{address}"' in PretrainedFeatureTransformer("mini")._repr_html_()
    publish("Source, https://elsewhere.example")
    assert "sktransfer.PretrainedFeatureTransformer" not in (
        PretrainedFeatureTransformer("mini")._repr_html_()
    )
    assert FineTunedClassifier()._get_doc_link() == ""


def test_a_class_that_has_no_page_has_no_link(publish):
    class Own(PretrainedFeatureTransformer):
        pass

    publish(f"Documentation, {SITE}")
    assert Own()._get_doc_link() == ""
    assert PixelRows()._get_doc_link() == ""


def test_the_address_is_that_of_the_project():
    project = tomllib.loads((REFERENCE.parents[1] / "pyproject.toml").read_text())["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    _documentation_link.documentation_url.cache_clear()
    assert _documentation_link.documentation_url() == urls.get("documentation")
