"""Every block of Python in every page runs, as it stands or with a stand-in that is listed here.

A page whose results are asserted has a test of its own, which takes its blocks. Of all others the
blocks run one after the other in a folder with drawn photographs, with a small network in the
place of those that would be downloaded. A block that can't run has a comment before it in the
page, ``<!-- not run: the reason -->``. One of another library has ``<!-- theirs: module -->``, and
runs where that module is installed.
"""

import doctest
import re
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.backbones.sources import _registered
from sktransfer.model_selection import TransferSearchCV

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")))
}
# tests that take the blocks of one page
OWN_TESTS = {
    f"docs/{name}": test
    for test in sorted(ROOT.glob("tests/**/test_*.py"))
    if "```python" in (text := test.read_text(encoding="utf-8")) and test != Path(__file__)
    for name in re.findall(r'"docs" / "(\w+\.md)"', text)
}
OWN_TESTS["docs/composition.md"] = ROOT / "tests/composition/test_page.py"

BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|theirs): (?P<word>[^\n]+?) -->\n)?```python\n(?P<code>.*?)```",
    flags=re.DOTALL,
)
FAST = 'recipe="fast", max_epochs=2, image_size=32, backbone='
# what would be downloaded or take minutes, and what takes its place
STAND_INS = (
    (r'\["resnet50", "convnext_tiny", "efficientnet_b0"\]', '["mini"]'),
    (r'"(timm:)?(resnet18|mobilenet_v2|mobilenetv3_large_100)"', '"mini"'),
    (r'FineTunedClassifier\((?=")', rf"\g<0>{FAST}"),
    (r'PretrainedFeatureTransformer\(\s*"mini"', r"\g<0>, image_size=32"),
    (r"FineTunedClassifier\(\)", f'FineTunedClassifier({FAST}"mini")'),
    (r"FineTunedTransformer\((?=F)", r"\g<0>cv=2, estimator="),
    (r"classifier\}, X, y", r"\g<0>, n_repeats=2"),
    (r"RandomForestClassifier\(\)", "RandomForestClassifier(10)"),
    (r"max_time=600", "max_time=2"),
    (r"\bcv=5\b", "cv=2"),
    (r"StratifiedKFold\(5,", "StratifiedKFold(2,"),
    (r"n_jobs=2", "n_jobs=1"),
)
# weights of others would be downloaded too
THEIR_STAND_INS = (
    (r"pretrained=True", "pretrained=False"),
    (r'weights="imagenet"', "weights=None"),
    (r"resnet18, metrics", "resnet18, pretrained=False, metrics"),
    (r"epochs=5", "epochs=1"),
    (r"fine_tune\(3\)", "fine_tune(1)"),
)


def blocks(page):
    """Return (mark, what the mark says, code) of each block of Python."""
    return [(m["mark"], m["word"], m["code"]) for m in BLOCK.finditer(PAGES[page])]


OTHERS = [page for page in PAGES if blocks(page) and page not in OWN_TESTS]


@pytest.fixture
def folder(tmp_path, monkeypatch, shapes):
    """Work in a folder with photographs/<class>/<image>, 24 of them, and the same as photos/."""
    for name in ("photographs", "photos"):
        for path, label in zip(*shapes, strict=True):
            copy = tmp_path / name / label / Path(path).name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(Path(path).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_registered, "registered", dict(_registered.registered))
    monkeypatch.setenv("KERAS_BACKEND", "torch")


@pytest.fixture
def names(folder, shapes):
    """Return what the pages take for granted: images, labels, a table, and models."""
    X, y = shapes
    names = {"X": X, "y": y, "path": X[0], "X_new": X[:4], "weights": np.ones(len(X))}
    names |= {"X_monday": X[:12], "y_monday": np.where(y[:12] == "disc", "crack", "dent")}
    names |= {"X_tuesday": X[12:], "y_tuesday": np.where(y[12:] == "disc", "fine", "dent")}
    pandas = pytest.importorskip("pandas")
    names["table"] = pandas.DataFrame(
        {"photo": X, "camera": ["a", "b"] * 12, "weight": np.arange(24.0)}
    )
    rows = PretrainedFeatureTransformer("mini", image_size=32)
    names["pipeline"] = make_pipeline(rows, LogisticRegression())
    names["classifier"] = FineTunedClassifier(
        "mini", image_size=32, recipe="fast", max_epochs=2, random_state=0
    )
    return names


@pytest.fixture
def fitted(names):
    """Fit what docs/plots.md draws."""
    names["classifier"].fit(names["X"], names["y"])
    grid = {"freeze_depth": [None, -1]}
    names["search"] = GridSearchCV(names["classifier"], grid, cv=2).fit(names["X"], names["y"])
    names["strategies"] = TransferSearchCV(names["classifier"], recipes=(), cv=2, random_state=0)
    names["strategies"].fit(names["X"], names["y"])


def replaced(code, stand_ins):
    for pattern, replacement in stand_ins:
        code = re.sub(pattern, replacement, code)
    return code


def run_session(code, page):
    """Run lines with prompts, and compare what they print, empty lines included."""
    code = code.replace("\n\n", "\n<BLANKLINE>\n")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(doctest.DocTestParser().get_doctest(code, {}, page, page, 0))
    assert runner.summarize().failed == 0


def run_theirs(code, page, names, monkeypatch):
    import timm

    create = timm.create_model  # embetter has no choice of weights
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **kw: create(name, pretrained=False, **kw)
    )
    with warnings.catch_warnings(action="ignore"):
        exec(compile(replaced(code, THEIR_STAND_INS), page, "exec"), names)
    monkeypatch.setattr(timm, "create_model", create)


@pytest.mark.parametrize("page", OTHERS)
def test_the_blocks_of_a_page_run_one_after_the_other(
    page, names, monkeypatch, request, closing_lines
):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot.matplotlib.rcParams, "backend", "Agg", raising=False)
    if page == "docs/plots.md":
        request.getfixturevalue("fitted")
    theirs = dict(names)
    ours_first = sorted(blocks(page), key=lambda block: block[0] == "theirs")
    with config_context():
        for mark, word, code in ours_first:
            if mark == "not run":
                closing_lines.append(f"{page}: a block is not run: {word}")
            elif mark == "theirs" and find_spec(word) is None:
                closing_lines.append(f"{page}: a block of {word} is not run: it is not installed")
            elif mark == "theirs":
                run_theirs(code, page, theirs, monkeypatch)
                closing_lines.append(f"{page}: a block of {word} was run")
            elif code.startswith(">>>"):
                run_session(code, page)
            else:
                exec(compile(replaced(code, STAND_INS), page, "exec"), names)
    pyplot.close("all")


def test_no_block_is_missed():
    for page, text in PAGES.items():
        assert len(blocks(page)) == text.count("```python"), page
        assert not re.search(r"```(py|python3|pycon)\n", text), page


def test_pages_with_a_test_of_their_own_leave_nothing_out():
    assert len(OWN_TESTS) >= 6
    for page, test in OWN_TESTS.items():
        assert test.exists()
        assert blocks(page), page
        assert not any(mark for mark, *_ in blocks(page)), page


def test_stand_ins_are_needed():
    code = "\n".join(code for page in OTHERS for _, _, code in blocks(page))
    for pattern, _ in STAND_INS + THEIR_STAND_INS:
        assert re.search(pattern, code), pattern


@pytest.mark.parametrize("page", [page for page in PAGES if "±" in PAGES[page]])
def test_a_page_says_what_plus_and_minus_mean(page):
    of_prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    assert re.search(r"standard (error|deviation)|interval", of_prose), page


def slugs(text):
    """Return the anchors that viewers of Markdown make of headings."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in slugs(target.read_text(encoding="utf-8")), link
