"""Threads that use a backbone for the first time at once, each time in a fresh process."""

import json
import subprocess
import sys

import numpy as np
import pytest

N_PROCESSES = 25  # for each backbone

# A cold process: two threads meet, then extract, fit and predict with a backbone that none
# has used before. Prints the sums of what each of them got.
COLD = """
import json, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

images, backbone, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
X = np.load(images)
y = np.arange(len(X)) % 2
options = {"backbone": backbone, "image_size": size, "precision": "float32"}
together = threading.Barrier(2)

def extract(depth):
    together.wait()
    transformer = PretrainedFeatureTransformer(**options, depth=depth, feature_cache=None)
    return float(np.abs(transformer.fit_transform(X)).sum(dtype=np.float64))

def fit(depth):
    together.wait()
    classifier = FineTunedClassifier(
        **options, freeze_depth=depth, max_epochs=1, random_state=0, feature_cache=None)
    return float(classifier.fit(X, y).decision_function(X).sum())

with ThreadPoolExecutor(2) as pool:
    rows = list(pool.map(extract, [None, None]))
    fits = list(pool.map(fit, [-1, -1])) if len(sys.argv) > 4 else []

# concurrent predictions of one fitted estimator
predictions = []
if fits:
    classifier = FineTunedClassifier(
        **options, freeze_depth=-1, max_epochs=1, random_state=0, feature_cache=None).fit(X, y)
    def predict(_):
        together.wait()
        return float(classifier.decision_function(X).sum())
    with ThreadPoolExecutor(2) as pool:
        predictions = list(pool.map(predict, range(2)))
print(json.dumps([rows, fits, predictions]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "images.npy"
    X = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    np.save(path, X)
    return str(path)


def run_cold(*arguments):
    process = subprocess.run(
        [sys.executable, "-c", COLD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", ["mini", "mobilenet_v2"])
def test_cold_concurrent_first_uses_give_the_right_rows(name, images, request):
    from sktransfer import PretrainedFeatureTransformer

    backbone = "mini" if name == "mini" else request.getfixturevalue("imagenet_weights")
    size = 39 if name == "mini" else 65
    alone = PretrainedFeatureTransformer(
        backbone, image_size=size, precision="float32", feature_cache=None
    ).fit_transform(np.load(images))
    expected = float(np.abs(alone).sum(dtype=np.float64))
    fitted = None
    for i in range(N_PROCESSES):
        with_fits = ["fits"] if i % 5 == 0 else []
        rows, fits, predictions = run_cold(images, backbone, size, *with_fits)
        np.testing.assert_allclose(rows, expected, rtol=1e-5)
        if fits:
            fitted = fits[0] if fitted is None else fitted
            np.testing.assert_allclose([*fits, *predictions], fitted, rtol=1e-3, atol=1e-3)
