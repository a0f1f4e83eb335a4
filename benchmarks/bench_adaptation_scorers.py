"""Which scorer to believe where the target has no labels.

Claims: `DeepEmbeddedValidation` chooses a weight of ``FineTunedClassifier(adapt="mcc")`` whose
accuracy on the target is within 0.05 of the best weight's on each shift. Scorers that ask how sure
the predictions are (entropy, soft neighbourhood density, MaNo) choose the largest weight on each
shift: the loss itself makes predictions sure.

For each shift and weight a head is trained on all images of the source and, without labels, of
the target, and each scorer looks at the fitted model. Labels of the target are read by the last
column alone.

    python benchmarks/bench_adaptation_scorers.py --digits digits_shift.npz --cifar cifar10.zip \
        --weights mobilenet_v2_0.35_imagenet.safetensors

Quarter of an hour on one core that others use too.
"""

import argparse
import tempfile

import numpy as np
import sklearn
from skada import make_da_pipeline, metrics
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline

from _data import cifar10, corrupted, digits_shift
from _report import write_csv
from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer.domain_adaptation import ImagesFromIds

WEIGHTS = (0, 0.1, 0.3, 1, 3, 10)
IMAGE_SIZE = 97


def shifts(digits, cifar):
    """Yield a name, and images and labels of the source and the target."""
    if digits:
        mnist, usps = (
            digits_shift(digits, name, IMAGE_SIZE, 0, 100, 0) for name in ("mnist", "usps")
        )
        yield "mnist to usps", mnist.X, mnist.y, usps.X, usps.y
        yield "usps to mnist", usps.X, usps.y, mnist.X, mnist.y
    if cifar:
        data = cifar10(cifar, IMAGE_SIZE, 0, 50, 50)
        for kind in ("noise", "contrast"):
            yield f"cifar-10 to {kind}", data.X, data.y, corrupted(data.X_test, kind), data.y_test


def scorers(images, reading):
    """Return skada's scorers that can work without labels of the target."""
    rows = PretrainedFeatureTransformer(**reading)
    return {
        "importance weights": metrics.ImportanceWeightedScorer(
            weight_estimator=make_pipeline(
                ImagesFromIds(images), rows, PCA(5, random_state=0), KernelDensity(bandwidth=3.0)
            )
        ),
        "deep embedded validation": metrics.DeepEmbeddedValidation(
            domain_classifier=make_pipeline(rows, LogisticRegression(C=0.01, max_iter=1000)),
            random_state=0,
        ),
        "entropy": metrics.PredictionEntropyScorer(),
        "soft neighbourhood density": metrics.SoftNeighborhoodDensity(),
        "circular validation": metrics.CircularValidation(),
        "mano": metrics.MaNoScorer(),
    }


def figures_of(shift, X, y, X_target, y_target, weights, store):
    """Yield a dict for each weight: every score, and the accuracy on the target."""
    images = np.empty(len(X) + len(X_target), dtype=object)
    images[:] = [*X, *X_target]
    _, number = np.unique(np.concatenate([y, y_target]), return_inverse=True)
    domain = np.repeat([1, -2], [len(X), len(X_target)])
    masked = np.where(domain > 0, number, -1)
    ids = np.arange(len(images)).reshape(-1, 1)
    reading = {"backbone": weights, "image_size": IMAGE_SIZE, "feature_cache": store}
    for weight in WEIGHTS:
        classifier = FineTunedClassifier(
            **reading, freeze_depth=None, adapt="mcc", adapt_weight=weight, random_state=0
        ).set_score_request(sample_weight=True)
        model = make_da_pipeline(ImagesFromIds(images), classifier)
        model.fit(ids, masked.copy(), sample_domain=domain)
        figures = {"shift": shift, "adapt_weight": weight}
        for name, scorer in scorers(images, reading).items():
            figures[name] = float(scorer(model, ids, masked.copy(), sample_domain=domain))
        figures["accuracy on target"] = float(
            np.mean(model.predict(ids[domain < 0]) == number[domain < 0])
        )
        print(figures, flush=True)
        yield figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits")
    parser.add_argument("--cifar")
    parser.add_argument("--weights", required=True)
    options = parser.parse_args()
    sklearn.set_config(enable_metadata_routing=True)
    rows, lost, chosen_weights = [], {}, {}
    with tempfile.TemporaryDirectory() as store:
        for shift, *data in shifts(options.digits, options.cifar):
            of_shift = list(figures_of(shift, *data, options.weights, store))
            accuracies = np.array([figures["accuracy on target"] for figures in of_shift])
            for name in of_shift[0].keys() - {"shift", "adapt_weight", "accuracy on target"}:
                chosen = int(np.argmax([figures[name] for figures in of_shift]))
                lost.setdefault(name, []).append(accuracies.max() - accuracies[chosen])
                chosen_weights.setdefault(name, []).append(WEIGHTS[chosen])
            rows += of_shift
    for name, losses in sorted(lost.items(), key=lambda item: np.mean(item[1])):
        print(
            f"{name}: loses {np.mean(losses):.3f} on average, {np.max(losses):.3f} at most; "
            f"chose {chosen_weights[name]}"
        )
    write_csv("adaptation_scorers", rows)
    assert np.max(lost["deep embedded validation"]) <= 0.05
    for name in ("entropy", "soft neighbourhood density", "mano"):
        assert set(chosen_weights[name]) == {WEIGHTS[-1]}


if __name__ == "__main__":
    main()
