"""Each image crosses the frozen network once: over searches, estimators and processes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureTransformer,
    count_forward_passes,
)

SMALL = {"backbone": "mini", "image_size": 32}
SHORT = {"recipe": "fast", "max_epochs": 2, "batch_size": 8, "random_state": 0}


def search_pipeline(cache, transformer=PretrainedFeatureTransformer, depth=None, **options):
    pipeline = make_pipeline(
        transformer(**SMALL, depth=depth, feature_cache=cache), LogisticRegression(max_iter=1000)
    )
    return GridSearchCV(pipeline, {"logisticregression__C": [0.01, 0.1]}, cv=3, **options)


def search_classifier(cache, classifier=FineTunedClassifier, freeze_depth=None, **options):
    classifier = classifier(**SMALL, **SHORT, freeze_depth=freeze_depth, feature_cache=cache)
    return GridSearchCV(classifier, {"lr": [1e-3, 1e-2]}, cv=3, **options)


@pytest.mark.parametrize("depth", [None, -1, 1])
def test_rows_come_from_the_activations_that_a_classifier_stored(shapes, cache, depth):
    X, y = shapes
    with count_forward_passes() as counter:
        search_classifier(cache, freeze_depth=depth).fit(X, y).score(X, y)
        search_pipeline(cache, depth=depth).fit(X, y).score(X, y)
    assert counter.computed == len(X)


def test_rows_of_the_whole_network_serve_a_classifier_that_freezes_it(shapes, cache):
    X, y = shapes
    with count_forward_passes() as counter:
        search_pipeline(cache, depth=-1).fit(X, y).score(X, y)
        search_classifier(cache, freeze_depth=None).fit(X, y).score(X, y)
    assert counter.computed == len(X)


def writing_down(estimator_class, log):
    """Return a subclass that adds the passes of each of its calls to the file `log`.

    `count_forward_passes` sees its own process alone; this one goes to the workers with its
    code, as it is made inside a function.
    """

    class WritingDown(estimator_class):
        def fit(self, X, y=None):
            return self._written("fit", X, y)

        def _written(self, method, *arguments):
            with count_forward_passes() as counter:
                result = getattr(estimator_class, method)(self, *arguments)
            with open(log, "a") as file:  # one short line is written at once
                file.write(json.dumps({"passed": counter.computed}) + "\n")
            return result

    for method in {"fit_transform", "transform", "predict"} & set(dir(estimator_class)):
        setattr(
            WritingDown,
            method,
            lambda self, *arguments, method=method: self._written(method, *arguments),
        )
    return WritingDown


def written(log):
    return [json.loads(line)["passed"] for line in Path(log).read_text().splitlines()]


@pytest.fixture(scope="module")
def noise():
    """Return more images than a few batches hold, and labels: workers meet on the way."""
    images = np.random.default_rng(0).integers(0, 256, (240, 32, 32, 3), dtype=np.uint8)
    return images, np.arange(len(images)) % 2


@pytest.mark.parametrize("kind", ["pipeline", "classifier"])
def test_each_image_passes_once_with_two_worker_processes(noise, cache, tmp_path, kind):
    X, y = noise
    log = str(tmp_path / "log")
    if kind == "pipeline":
        transformer = writing_down(PretrainedFeatureTransformer, log)
        search = search_pipeline(cache, transformer, n_jobs=2)
    else:
        classifier = writing_down(FineTunedClassifier, log)
        search = search_classifier(cache, classifier, -1, n_jobs=2)
    search.fit(X, y)
    passes = written(log)
    assert len(passes) >= 13  # 2 candidates x 3 folds, fitted and scored, and the refit
    assert sum(passes) == len(X)


# what another process runs: its own reading of the images, all of them passed or kept
TRANSFORM = """
import json, sys, time
from pathlib import Path
import numpy as np
from sktransfer import PretrainedFeatureTransformer, count_forward_passes
images, cache, meeting = sys.argv[1:4]
X = np.load(images)
transformer = PretrainedFeatureTransformer("mini", image_size=32, feature_cache=cache).fit(X[:1])
Path(meeting).joinpath(sys.argv[4]).touch()
while len(list(Path(meeting).iterdir())) < int(sys.argv[5]):
    time.sleep(0.001)
with count_forward_passes() as counter:
    rows = transformer.transform(X)
print(json.dumps({"passed": counter.computed, "sum": float(rows.sum())}))
"""


def transform_in_processes(X, cache, tmp_path, n_processes):
    """Let processes transform `X` at the same moment; return what they report."""
    images, meeting = tmp_path / "images.npy", tmp_path / "meeting"
    np.save(images, X)
    meeting.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TRANSFORM]
            + [str(argument) for argument in (images, cache, meeting, i, n_processes)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(n_processes)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return [json.loads(output) for output in outputs]


def test_processes_that_start_on_an_empty_store_at_once_share_the_work(noise, cache, tmp_path):
    X, _ = noise
    one, other = transform_in_processes(X, cache, tmp_path, 2)
    assert one["sum"] == other["sum"]
    assert one["passed"] + other["passed"] == len(X)


def test_in_a_later_process_no_image_passes(noise, cache, tmp_path):
    X, y = noise
    with count_forward_passes() as counter:
        search_pipeline(cache).fit(X[:40], y[:40])
    assert counter.computed == 40
    (later,) = transform_in_processes(X[:40], cache, tmp_path, 1)
    assert later["passed"] == 0


FIT_OFTEN = """
import sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

X = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), dtype=np.uint8)
y = np.arange(len(X)) % 2
options = {"backbone": "mini", "image_size": 32, "feature_cache": sys.argv[1]}
estimators = [
    make_pipeline(PretrainedFeatureTransformer(**options), LogisticRegression(max_iter=1000)),
    FineTunedClassifier(**options, recipe="fast", freeze_depth=-2, max_epochs=1),
]
for i in range(50):
    for estimator in estimators:
        # other images in every fit: what is kept of them would add up, too
        estimator.fit((X + i).astype(np.uint8), y).predict(X[:4])
    if i in (9, 49):
        with open("/proc/self/status") as status:
            print(next(line.split()[1] for line in status if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_fifty_fits_in_one_process_do_not_add_up_in_memory(cache):
    output = subprocess.run(
        [sys.executable, "-c", FIT_OFTEN, str(cache)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    ).stdout
    after_10, after_50 = map(int, output.split())  # KiB
    # A network kept by each fit would be 250 MiB, the activations of each 20 MiB; the
    # allocator's own ups and downs are 5.
    assert after_50 - after_10 < 10 * 1024


@pytest.mark.parametrize("kind", ["pipeline", "classifier"])
def test_bfloat16_scores_as_float32_does_within_the_spread_of_the_folds(cache, kind):
    digits, y = load_digits(return_X_y=True)
    X, y = digits[:300], y[:300]
    scores = {}
    for precision in ("float32", "bfloat16"):
        options = {
            **SMALL,
            "image_shape": (8, 8),
            "pixel_range": (0, 16),
            "precision": precision,
            "feature_cache": cache,
        }
        if kind == "pipeline":
            model = make_pipeline(
                PretrainedFeatureTransformer(**options), LogisticRegression(max_iter=1000)
            )
        else:
            model = FineTunedClassifier(**options, recipe="fast", max_epochs=5, random_state=0)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        scores[precision] = cross_val_score(model, X, y, cv=folds)
    spread = scores["float32"].std()
    assert spread > 0  # not all right or all wrong, where nothing could differ
    assert scores["float32"].mean() > 0.8
    assert abs(scores["bfloat16"].mean() - scores["float32"].mean()) <= spread
