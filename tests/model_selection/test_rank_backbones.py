import doctest
import inspect
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score

from sktransfer import PretrainedFeatureTransformer, count_forward_passes
from sktransfer.exceptions import UnreadableImageWarning
from sktransfer.hygiene import DuplicateGroups
from sktransfer.model_selection import DuplicateGroups as SameGroups
from sktransfer.model_selection import rank_backbones

N = 60


def drawn(n=N):
    """Return small images of two kinds of stripes in any colour, and their labels."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.integers(0, 90, (n, 32, 32, 3), dtype=np.uint8)
    for image, kind in zip(X, y, strict=True):
        bright = np.indices((32, 32))[kind] // 4 % 2 == 1
        image[bright] += rng.integers(60, 150, 3).astype(np.uint8)
    return X, np.array(["across", "down"])[y]


@pytest.fixture(scope="module")
def stripes():
    return drawn()


@pytest.fixture(scope="module")
def networks():
    """Return a good and a bad network that take no time."""
    random = PretrainedFeatureTransformer("mini", weights=None, image_size=32, feature_cache=None)
    return ["mini", random]


SMALL = {"image_size": 32, "feature_cache": None}


@pytest.fixture(scope="module")
def ranking(stripes, networks):
    with count_forward_passes() as counter:
        ranking = rank_backbones(*stripes, [*networks, "mini_gone.safetensors"], **SMALL)
    return ranking, counter.computed


def test_each_image_passes_each_network_once_without_a_store_too(ranking):
    table, computed = ranking
    assert computed == sum(record.forward_passes for record in table) == 2 * N
    assert table.rounds == (N,)
    assert sorted(table.positions) == list(range(N))


def test_the_table_tells_what_each_network_is_worth_and_costs(ranking):
    table, _ = ranking
    first, second, gone = table
    assert first.outcome == "best"
    assert first.error == 0
    assert first.score > 0.9
    assert first.width == {None: 256, -1: 128}[first.depth]
    assert (first.n_params, first.n_bytes, first.licence) == (1_598_378, 0, "BSD-3-Clause")
    assert second.score <= first.score
    assert first.seconds > 0
    assert (gone.score, gone.round, gone.forward_passes) == (None, None, 0)
    assert "no such file of weights" in gone.outcome


def test_the_best_estimator_scores_on_the_same_folds_what_the_table_says(ranking, stripes):
    table, _ = ranking
    X, y = stripes
    best = table.best()
    assert not hasattr(best[0], "backbone_spec_")
    assert best[0].depth == table[0].depth
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(
        best, X[table.positions], y[table.positions], cv=folds, groups=table.groups
    )
    assert scores.mean() == pytest.approx(table[0].score)
    with pytest.raises(ValueError, match=r"index=2 is mini_gone\.safetensors, left out"):
        table.estimator(2)


def test_it_prints_and_is_a_frame_and_a_table_in_a_notebook(ranking):
    table, _ = ranking
    lines = repr(table).splitlines()
    assert lines[0] == "2 backbones by accuracy on 60 images, in rounds of 60; 1 left out"
    assert lines[1].split()[:4] == ["backbone", "depth", "score", "±"]
    assert lines[2].startswith("mini ")
    assert "BSD-3-Clause" in lines[2]
    frame = table.to_frame()
    assert list(frame["backbone"]) == ["mini", *[record.backbone for record in table[1:]]]
    assert {"score", "error", "seconds", "forward_passes", "licence"} <= set(frame.columns)
    html = table._repr_html_()
    assert html.count("<tr") == 4
    assert "weights=None" in html


def test_hostile_names_are_escaped_in_a_notebook(stripes):
    names = ["mini", "<script>alert(1)</script>.safetensors"]
    html = rank_backbones(*stripes, names, **SMALL)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_groups_and_duplicates_are_drawn_together_and_cross_no_fold(stripes):
    X, y = stripes
    X = np.concatenate([X, X[:20]])  # duplicates of other groups
    y, groups = np.concatenate([y, y[:20]]), np.arange(80) // 2
    folds = _Recording(3)
    table = rank_backbones(X, y, ["mini"], groups=groups, cv=folds, max_images=50, **SMALL)
    assert len(table.positions) <= 50
    theirs = groups[table.positions]
    assert np.isin(groups, theirs).sum() == len(table.positions)  # whole groups
    joined = dict(zip(table.positions.tolist(), table.groups.tolist(), strict=True))
    pairs = [(i, i + 60) for i in range(20) if i in joined and i + 60 in joined]
    assert pairs
    assert all(joined[one] == joined[other] for one, other in pairs)
    for train, test in folds.seen:
        assert not set(table.groups[train]) & set(table.groups[test])


class _Recording(StratifiedGroupKFold):
    """A splitter that remembers its folds."""

    def __init__(self, n_splits):
        super().__init__(n_splits)
        self.seen = []

    def split(self, X, y=None, groups=None):
        for fold in super().split(X, y, groups):
            self.seen.append(fold)
            yield fold


def test_stored_rows_are_read_and_no_image_passes_again(stripes, cache):
    X, y = stripes
    with count_forward_passes() as counter:
        first = rank_backbones(X, y, ["mini"], image_size=32, feature_cache=cache)
        second = rank_backbones(X, y, ["mini"], image_size=32, feature_cache=cache)
        first.best().fit(X, y)
    assert counter.computed == N
    assert second[0].forward_passes == 0
    assert second[0].score == first[0].score


def test_numbers_are_ranked_by_regressions(networks):
    rng = np.random.default_rng(0)
    y = rng.uniform(0, 200, 50)
    X = rng.integers(0, 20, (50, 32, 32, 3), dtype=np.uint8)
    X += y.astype(np.uint8)[:, None, None, None]
    table = rank_backbones(X, y, networks, **SMALL)
    assert table.scoring == "R²"
    assert table[0].score > 0.8
    assert type(table.best()[-1]).__name__ == "RidgeCV"
    two = rank_backbones(X, np.c_[y, -y], ["mini"], scoring="neg_mean_absolute_error", **SMALL)
    assert two.scoring == "neg_mean_absolute_error"
    assert two[0].score < 0


def test_files_that_can_not_be_read_are_named_and_left_out(tmp_path, stripes):
    X, y = stripes
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    (tmp_path / "7.png").write_bytes(b"no image")
    with pytest.warns(UnreadableImageWarning, match=r"left out: 1 of 60 .*\n +X\[7\]") as caught:
        table = rank_backbones(paths, y, ["mini"], **SMALL)
    assert caught[0].filename == __file__
    assert table.n_images == N - 1
    assert 7 not in table.positions


def test_licence_and_size_choose_and_the_others_are_told_why(stripes):
    random = PretrainedFeatureTransformer("resnet18", weights=None, **SMALL)
    table = rank_backbones(
        *stripes, ["mini", random], licence=["apache", "bsd"], max_params=2_000_000, **SMALL
    )
    assert table[1].outcome == "11,689,512 parameters, and max_params=2,000,000"
    table = rank_backbones(*stripes, ["mini", random], licence="bsd", **SMALL)
    assert table[1].outcome == "its licence is not stated, and licence='bsd'"
    with pytest.raises(
        ValueError, match=r"backbones: none of them can be ranked\. mini: its licence"
    ):
        rank_backbones(*stripes, ["mini"], licence="MIT", **SMALL)


def test_a_network_that_can_not_be_cut_there_is_told_with_its_reason(stripes):
    deeper = PretrainedFeatureTransformer("mobilenet_v3_small", weights=None, **SMALL)
    table = rank_backbones(*stripes, ["mini", deeper], depths=(-6,), **SMALL)
    assert table[0].backbone == "mobilenet_v3_small, weights=None, image_size=32"
    assert table[0].depth == -6
    assert table[1].outcome.startswith("can't be used: depth=-6 ")


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"depths": ()}, ValueError, "depths must hold whole numbers and None"),
        ({"depths": (None, 0.5)}, ValueError, "depths must hold"),
        ({"depths": -1}, ValueError, "depths"),
        ({"cv": 1}, ValueError, "cv"),
        ({"cv": [([0], [1])]}, ValueError, "cv"),
        ({"max_images": 1}, ValueError, "max_images"),
        ({"max_params": 0.5}, ValueError, "max_params"),
        ({"licence": []}, ValueError, "licence must be"),
        ({"offline": "yes"}, ValueError, "offline"),
        ({"scoring": "acuracy"}, ValueError, "acuracy"),
        ({"groups": [1, 2]}, ValueError, "inconsistent numbers of samples"),
        ({"image_size": 5}, ValueError, "image_size"),
        ({"y": np.zeros(N)}, ValueError, "y has the class"),
        ({"y": np.eye(2, dtype=int)[np.arange(N) % 2]}, ValueError, "got multilabel-indicator"),
        ({"y": np.arange(3)}, ValueError, "inconsistent numbers of samples"),
        ({"X": ["nothing.png"] * N, "backbones": ["mini"]}, ValueError, "can't be read"),
        ({"cv": 31, "backbones": ["mini"]}, ValueError, "cv=31 is more than the 30 images of the"),
        ({"groups": np.arange(N) % 4}, ValueError, "cv=5 is more than the 4 groups"),
        ({"y": np.array(["a", None, "b"] * 20, dtype=object)}, ValueError, "the first at pos.* 1"),
    ],
)
def test_wrong_parameters_are_named(stripes, changed, error, message):
    X, y = stripes
    with pytest.raises(error, match=message):
        rank_backbones(**{"X": X, "y": y, "backbones": ["mini"], **SMALL, **changed})


def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature():
    section = inspect.getdoc(rank_backbones).split("Parameters\n")[1].split("----------\n")[1]
    written = re.findall(r"^([\w, ]+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    signature = inspect.signature(rank_backbones).parameters
    expected = [
        (
            name,
            ""
            if p.default is p.empty
            else f'"{p.default}"'
            if isinstance(p.default, str)
            else str(p.default),
        )
        for name, p in signature.items()
    ]
    assert written[: len(expected)] == expected


def test_the_example_runs_offline():
    (example,) = doctest.DocTestFinder(recurse=False).find(rank_backbones, "rank_backbones")
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.summarize() == (0, len(example.examples))


def test_duplicate_groups_are_here_as_well():
    assert SameGroups is DuplicateGroups
