"""near_duplicates finds most of the copies that are known of, and few that are none.

    OMP_NUM_THREADS=1 python benchmarks/bench_duplicates_cifar10.py cifar10.zip

The zip holds CIFAR-10 as JPEG files, ``train/<class>/*.jpg`` (50,000) and
``test/<class>/*.jpg`` (10,000): saved once more than the published pixels.

- published: all 60,000 images at several thresholds. How many test images have a twin
  in training, in sets with it, beside the 286 pairs (2.9 % of the test images) that
  Barz and Denzler annotated by hand in "Do we train on test data?", arXiv 1902.00423.
  Their 3.3 % counts 39 pairs within the test images too. The backbone "mini" was
  trained on the training images too: what it finds here is no measure of what it finds
  elsewhere.
- copies: 500 test images, each changed in one way, and which share of the changed is
  found beside its original at the default thresholds. Here the truth is known.

``--draw pairs.png`` draws 100 of the pairs of test and training image that the default
thresholds find, at random, so that a reader can judge them by eye. ``--score`` adds the
accuracy of a logistic regression on the features with and without the twins, which
passes all images through the network: minutes more.

Claim: at the defaults 2 to 3.5 % of the test images have a twin in training; at
least 95 % of copies are found that were saved again, made brighter, or lost contrast.
About three minutes on 2 cores, a second run less, as the store has the features.
"""

import argparse
import io
import time
import zipfile

import numpy as np
from PIL import Image, ImageEnhance

from _report import write_csv
from sktransfer.hygiene import leakage_report, near_duplicates

# max_distance, min_cosine; the defaults come first
THRESHOLDS = [(12, 0.95), (4, 0.95), (8, 0.95), (10, 0.90), (10, 0.95), (12, 0.93), (12, 0.97)]
PUBLISHED = 286  # pairs of test and training image in the lists beside the article
N_COPIES, N_DRAWN = 500, 100


def read(path):
    """Return the images as bytes, their classes, and which of them are for the test."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        X = [archive.read(name) for name in names]
    parts = [name.split("/") for name in names]
    return X, np.array([part[1] for part in parts]), np.array([p[0] == "test" for p in parts])


def saved(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def cropped(image, margin):
    width, height = image.size
    return image.crop((margin, margin, width - margin, height - margin))


CHANGES = {
    "saved at quality 75": lambda image: saved(image, 75),
    "saved at quality 40": lambda image: saved(image, 40),
    "brighter by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "contrast less by 20 %": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "twice the size": lambda image: image.resize((64, 64), Image.Resampling.BICUBIC),
    "half the size": lambda image: image.resize((16, 16), Image.Resampling.BICUBIC),
    "grey": lambda image: image.convert("L"),
    "cropped by 1 pixel a side": lambda image: cropped(image, 1),
    "cropped by 2 pixels a side": lambda image: cropped(image, 2),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def find_published(X, is_test):
    for max_distance, min_cosine in THRESHOLDS:
        started = time.perf_counter()
        found = near_duplicates(X, max_distance=max_distance, min_cosine=min_cosine)
        seconds = time.perf_counter() - started
        twins = np.isin(found.labels, found.labels[~is_test]) & is_test
        within = [
            sum(is_test[list(one.positions)]) for one in found if is_test[list(one.positions)].all()
        ]
        row = {
            "what": "published",
            "change": "",
            "max_distance": max_distance,
            "min_cosine": min_cosine,
            "images": len(X),
            "found": int(twins.sum()),
            "share": twins.sum() / is_test.sum(),
            "twins_within_test_only": int(sum(within)),
            "sets": len(found),
            "largest_set": max(len(one.positions) for one in found),
            "equal_sets": sum(one.equal for one in found),
            "seconds": round(seconds, 1),
        }
        print(
            f"distance <= {max_distance:<3} cosine >= {min_cosine:.2f}   {row['found']:>4} of "
            f"{is_test.sum()} test images have a twin in training ({row['share']:.2%}); "
            f"published: {PUBLISHED}; largest set {row['largest_set']}; {seconds:.0f} s"
        )
        yield row, found


def find_copies(X):
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in X]
    for name, change in CHANGES.items():
        started = time.perf_counter()
        found = near_duplicates(images + [change(image) for image in images], feature_cache=None)
        seconds = time.perf_counter() - started
        share = float(np.mean(found.labels[: len(X)] == found.labels[len(X) :]))
        print(f"{name:<28}{share:>7.1%} found   {seconds:.0f} s")
        yield {
            "what": "copies",
            "change": name,
            "max_distance": THRESHOLDS[0][0],
            "min_cosine": THRESHOLDS[0][1],
            "images": len(X),
            "found": round(share * len(X)),
            "share": share,
            "twins_within_test_only": "",
            "sets": "",
            "largest_set": "",
            "equal_sets": "",
            "seconds": round(seconds, 1),
        }


def draw(X, is_test, found, path):
    """Draw test images beside a training image of their set, 10 pairs in a row."""
    pairs = []
    for one in found:
        here = np.array(one.positions)
        training = here[~is_test[here]]
        pairs += [(position, training[0]) for position in here[is_test[here]] if len(training)]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:N_DRAWN]
    sheet = Image.new("RGB", (10 * 140, -(-len(chosen) // 10) * 70), "white")
    for k, index in enumerate(chosen):
        for side, position in enumerate(pairs[index]):
            tile = Image.open(io.BytesIO(X[position])).resize((64, 64))
            sheet.paste(tile, (k % 10 * 140 + side * 65, k // 10 * 70))
    sheet.save(path)
    print(f"drew {len(chosen)} of {len(pairs)} pairs: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zip", help="CIFAR-10 as JPEG files, {train,test}/<class>/*.jpg")
    parser.add_argument("--draw", metavar="PNG", help="draw pairs that were found")
    parser.add_argument("--score", action="store_true", help="add the accuracy without twins")
    arguments = parser.parse_args()
    X, y, is_test = read(arguments.zip)

    rows = []
    for row, found in find_published(X, is_test):
        rows.append(row)
        if arguments.draw and len(rows) == 1:
            draw(X, is_test, found, arguments.draw)
    test = np.flatnonzero(is_test)
    some = np.random.default_rng(0).choice(test, N_COPIES, replace=False)
    rows += find_copies([X[position] for position in some])
    write_csv("bench_duplicates_cifar10", rows)
    if arguments.score:
        print(leakage_report(X, y, cv=[(np.flatnonzero(~is_test), test)]))

    assert 0.02 <= rows[0]["share"] <= 0.035
    share = {row["change"]: row["share"] for row in rows}
    for change in ("saved at quality 75", "brighter by 20 %", "contrast less by 20 %"):
        assert share[change] >= 0.95, change


if __name__ == "__main__":
    main()
