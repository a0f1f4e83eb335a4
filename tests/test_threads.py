"""Threads that use a backbone for the first time at once, each time in a cold process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sktransfer import PretrainedFeatureTransformer

N_PROCESSES = 50  # for each backbone
N_WITH_FITS = 5  # of them

# Forks cold processes, which have the package imported and no backbone loaded. In each, two
# threads meet, and extract, fit and predict with a backbone that none has used before. Prints
# a line for each process: the sums of what each thread got.
COLD = """
import json, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import torch
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer

images, backbone, size, n_processes, n_with_fits = sys.argv[1:]
X = np.load(images)
y = np.arange(len(X)) % 2
options = {"backbone": backbone, "image_size": int(size), "precision": "float32",
           "feature_cache": None}

def both(work):
    together = threading.Barrier(2)
    def meet_and_work(_):
        together.wait()
        return work()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(meet_and_work, range(2)))

def extract():
    rows = PretrainedFeatureTransformer(**options).fit_transform(X)
    return float(np.abs(rows).sum(dtype=np.float64))

def fit():
    classifier = FineTunedClassifier(**options, max_epochs=1, random_state=0)
    return classifier.fit(X, y)

def work(with_fits):
    if not with_fits:
        return both(extract), []
    fitted = both(fit)
    logits = both(lambda: fitted[0].decision_function(X).tolist())
    return both(extract), [*logits, fitted[1].decision_function(X).tolist()]

for i in range(int(n_processes)):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with os.fdopen(writing, "w") as file:
            json.dump(work(i < int(n_with_fits)), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        print(file.read() or "the process ended", flush=True)
    os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "images.npy"
    X = np.random.default_rng(0).integers(0, 256, (20, 40, 40, 3), dtype=np.uint8)
    np.save(path, X)
    return str(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("name", "size"), [("mini", 64), ("mobilenet_v2", 65)])
def test_cold_concurrent_first_uses_give_the_right_rows(name, size, images, request):
    backbone = name if name == "mini" else request.getfixturevalue("imagenet_weights")
    alone = PretrainedFeatureTransformer(
        backbone, image_size=size, precision="float32", feature_cache=None
    ).fit_transform(np.load(images))
    expected = float(np.abs(alone).sum(dtype=np.float64))
    # torch's own threads, which a limit in the environment would leave out
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    output = subprocess.run(
        [sys.executable, "-c", COLD, images, backbone]
        + [str(number) for number in (size, N_PROCESSES, N_WITH_FITS)],
        check=True,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ).stdout
    reports = [json.loads(line) for line in output.splitlines()]
    assert len(reports) == N_PROCESSES
    np.testing.assert_allclose([rows for rows, _ in reports], expected, rtol=1e-5)
    logits = [outputs for _, fits in reports for outputs in fits]
    assert len(logits) == 3 * N_WITH_FITS
    for outputs in logits[1:]:
        np.testing.assert_allclose(outputs, logits[0], rtol=1e-3, atol=1e-3)
