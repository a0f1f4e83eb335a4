"""Source and target images in `fit` and `predict`, and the adaptation to the target."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.metadata_routing import get_routing_for_object

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    FineTunedTransformer,
    count_forward_passes,
)
from sktransfer.exceptions import ImageReadError, UnreadableImageWarning

SHORT = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 2,
    "batch_size": 16,
    "precision": "float32",
    "random_state": 0,
}
RNG = np.random.default_rng(0)


def draw(label, low, high):
    """Return an image with a bar, horizontal or vertical, on a noisy ground."""
    image = RNG.integers(low, low + 40, size=(16, 16), dtype=np.uint8)
    place = RNG.integers(4, 12)
    (image if label else image.T)[place - 2 : place + 2] = high
    return image


@pytest.fixture(scope="module")
def images():
    """Return bright bars on a dark ground, 24 sources, and 24 dark ones of the target."""
    y = np.tile([0, 1], 24)
    X = np.stack([draw(label, *((0, 255) if i < 24 else (170, 90))) for i, label in enumerate(y)])
    return X, y, np.repeat([1, -2], 24)


@pytest.fixture(scope="module")
def adapted(images):
    X, y, domain = images
    return FineTunedClassifier(**SHORT, adapt="mcc").fit(X, y, sample_domain=domain)


@pytest.mark.parametrize("kind", [FineTunedClassifier, FineTunedRegressor])
def test_without_adapt_a_fit_with_domains_is_one_of_the_sources(images, kind):
    X, y, domain = images
    estimator = kind(**SHORT)
    of_sources = clone(estimator).fit(X[:24], y[:24])
    fitted = clone(estimator).fit(X, y, sample_domain=domain)
    np.testing.assert_array_equal(fitted.predict(X), of_sources.predict(X))
    of_all = fitted.predict(X, sample_domain=domain, allow_source=True)
    np.testing.assert_array_equal(of_all, of_sources.predict(X))
    assert fitted.score(X[24:], y[24:], sample_domain=domain[24:]) == of_sources.score(
        X[24:], y[24:]
    )


@pytest.mark.parametrize("adapt", [None, "mcc"])
def test_labels_of_the_target_are_never_read(images, hidden_labels, adapt):
    X, y, domain = images
    names = np.where(y == 1, "bar", "column")
    hidden = hidden_labels(names, domain < 0)
    classifier = FineTunedClassifier(**SHORT, adapt=adapt)
    fitted = clone(classifier).fit(X, hidden, sample_domain=domain)
    told = clone(classifier).fit(X, names, sample_domain=domain)
    np.testing.assert_array_equal(fitted.predict_proba(X), told.predict_proba(X))
    assert fitted.classes_.tolist() == ["bar", "column"]


def test_numbers_of_the_target_are_never_read(images, hidden_labels):
    X, y, domain = images
    hidden = hidden_labels(y.astype(float), domain < 0)
    fitted = FineTunedRegressor(**SHORT).fit(X, hidden, sample_domain=domain)
    masked = np.where(domain > 0, y, np.nan)
    told = FineTunedRegressor(**SHORT).fit(X, masked, sample_domain=domain)
    np.testing.assert_array_equal(fitted.predict(X), told.predict(X))


def test_masked_labels_say_what_the_target_is_only_to_a_fit_that_adapts(images, adapted):
    X, y, domain = images
    masked = np.where(domain > 0, y, -1)
    fitted = FineTunedClassifier(**SHORT, adapt="mcc").fit(X, masked)
    np.testing.assert_array_equal(fitted.predict_proba(X), adapted.predict_proba(X))
    plain = FineTunedClassifier(**SHORT).fit(X, masked)
    assert plain.classes_.tolist() == [-1, 0, 1]


def test_weights_of_the_target_are_not_read_and_sources_of_weight_0_are_left_out(images):
    X, y, domain = images
    weights = np.where(domain > 0, 1.0, np.nan)
    weights[:4] = 0
    classifier = FineTunedClassifier(**SHORT, adapt="mcc")
    fitted = clone(classifier).fit(X, y, weights, sample_domain=domain)
    other = clone(classifier).fit(X[4:], y[4:], sample_domain=domain[4:])
    np.testing.assert_array_equal(fitted.predict_proba(X), other.predict_proba(X))


def test_it_adapts_to_the_target():
    X, y = load_digits(n_class=5, return_X_y=True)
    X, y, domain = X[:300], y[:300], np.repeat([1, -2], 150)
    X[150:] = 16 - X[150:]
    options = {"image_shape": (8, 8), "pixel_range": (0, 16), "max_epochs": 10, "adapt": "mcc"}
    fits = [
        FineTunedClassifier(**{**SHORT, **options, **changes}).fit(X, y, sample_domain=domain)
        for changes in (
            {"adapt": None, "freeze_depth": None},
            {"adapt_weight": 0, "freeze_depth": None},
            {"freeze_depth": None},
            {},
        )
    ]
    scores = [fitted.score(X[150:], y[150:]) for fitted in fits]
    assert scores[0] + 0.2 < scores[1] < scores[2]
    assert scores[-1] > 0.95
    assert fits[-1].score(X[:150], y[:150], sample_domain=1, allow_source=True) > 0.95
    losses = [record["adapt_loss"] for record in fits[-1].history_]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("freeze_depth", ["auto", None])
def test_a_fit_is_a_function_of_its_seed(images, freeze_depth):
    X, y, domain = images
    classifier = FineTunedClassifier(**SHORT, adapt="mcc").set_params(freeze_depth=freeze_depth)
    fits = [clone(classifier).fit(X, y, sample_domain=domain) for _ in range(2)]
    np.testing.assert_array_equal(*(fitted.predict_proba(X) for fitted in fits))
    other = clone(classifier).set_params(random_state=1).fit(X, y, sample_domain=domain)
    assert np.abs(other.predict_proba(X) - fits[0].predict_proba(X)).max() > 0


def test_an_image_passes_once_and_epochs_cost_no_passes(images, cache):
    X, y, domain = images
    with count_forward_passes() as counter:
        for weight in (0.0, 1.0):
            FineTunedClassifier(
                **SHORT, adapt="mcc", adapt_weight=weight, feature_cache=str(cache)
            ).fit(X, y, sample_domain=domain).predict(X, domain, allow_source=True)
    assert counter.computed == len(X)


@pytest.mark.parametrize("probe_weight", [0, 0.5])
def test_a_pickle_predicts_the_same_of_both_domains(images, probe_weight):
    X, y, domain = images
    adapted = FineTunedClassifier(**SHORT, adapt="mcc", probe_weight=probe_weight)
    adapted.fit(X, y, sample_domain=domain)
    loaded = pickle.loads(pickle.dumps(adapted))
    for number in (None, domain):
        np.testing.assert_array_equal(
            loaded.predict_proba(X, number, allow_source=True),
            adapted.predict_proba(X, number, allow_source=True),
        )
    of_target, mixed = adapted.predict_proba(X), adapted.predict_proba(X, domain, allow_source=True)
    np.testing.assert_array_equal(mixed[24:], of_target[24:])
    assert np.abs(mixed[:24] - of_target[:24]).max() > 0


def test_the_linear_probe_is_that_of_the_target_too(images):
    X, y, domain = images
    options = {**SHORT, "adapt": "mcc", "adapt_weight": 0, "lr": 1e-12}  # nothing is trained
    fits = [
        FineTunedClassifier(**options, probe_weight=weight).fit(X, y, sample_domain=domain)
        for weight in (0, 0.5)
    ]
    for number in (-1, 1):
        first, second = (f.predict_proba(X, number, allow_source=True) for f in fits)
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_scores_and_decisions_follow_the_domain(images, adapted):
    X, y, domain = images
    of_source = {"sample_domain": domain[:24], "allow_source": True}
    decision = adapted.decision_function(X[:24], **of_source)
    np.testing.assert_array_equal(adapted.predict(X[:24], **of_source), (decision > 0).astype(int))
    expected = np.mean(adapted.predict(X[:24], **of_source) == y[:24])
    assert adapted.score(X[:24], y[:24], **of_source) == expected
    for method in (adapted.predict, adapted.predict_proba, adapted.decision_function):
        with pytest.raises(ValueError, match=r"24 rows of sources among 48.*allow_source=True"):
            method(X, domain)
    with pytest.raises(ValueError, match="allow_source=False"):
        adapted.score(X, y, sample_domain=domain)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": "default", "augment": "crop", "augment_views": 2},
        {"early_stopping": True, "validation_fraction": 0.25},
        {"head": (8,)},
        {"class_weight": "balanced", "mix": "mixup"},
        {"freeze_depth": 0, "augment_views": None, "augment": "light"},
        {"training_precision": "bfloat16"},
        {"unfreeze_every": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_it_goes_with_the_other_parameters(images, changes):
    X, y, domain = images
    options = {**SHORT, "adapt": "mcc", **changes}
    fitted = FineTunedClassifier(**options).fit(X, y, sample_domain=domain)
    probabilities = fitted.predict_proba(X, domain, allow_source=True)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert all(np.isfinite(record["adapt_loss"]) for record in fitted.history_)


def test_an_interrupted_fit_is_resumed_with_the_same_batches(images, adapted, tmp_path):
    X, y, domain = images

    class Stop(Exception):
        pass

    from skorch.callbacks import Callback

    class Interrupt(Callback):
        on = True

        def on_epoch_begin(self, net, **kwargs):
            if self.on and len(net.history) == 2:
                raise Stop

    callback = Interrupt()
    classifier = FineTunedClassifier(
        **SHORT, adapt="mcc", checkpoint_dir=tmp_path, callbacks=[callback]
    )
    with pytest.raises(Stop):
        classifier.fit(X, y, sample_domain=domain)
    assert len(list(tmp_path.iterdir())) == 1
    Interrupt.on = False
    classifier.fit(X, y, sample_domain=domain)
    np.testing.assert_array_equal(classifier.predict_proba(X), adapted.predict_proba(X))


def test_unreadable_images_of_both_domains_are_named_with_their_positions(images, tmp_path):
    X, y, domain = images
    cells = np.empty(48, dtype=object)
    cells[:] = list(X)
    cells[2] = cells[30] = str(tmp_path / "missing.png")
    classifier = FineTunedClassifier(**SHORT, adapt="mcc")
    with pytest.raises(ImageReadError) as caught:
        classifier.fit(cells, y, sample_domain=domain)
    assert [failure.position for failure in caught.value.failures] == [2, 30]
    with pytest.warns(UnreadableImageWarning, match="2 of 48"):
        classifier.set_params(on_error="skip").fit(cells, y, sample_domain=domain)
    good = np.delete(np.arange(48), [2, 30])
    of_good = clone(classifier).fit(X[good], y[good], sample_domain=domain[good])
    np.testing.assert_allclose(
        classifier.predict_proba(X), of_good.predict_proba(X), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapt": "dann"}, "The 'adapt' parameter of FineTunedClassifier must be"),
        ({"adapt": "mcc", "adapt_weight": -1}, "The 'adapt_weight' parameter"),
        ({"adapt": "mcc", "batch_norm": "train"}, "adapt='mcc' needs batch_norm='frozen'"),
    ],
)
def test_parameters_that_are_not_allowed_are_named(images, changes, message):
    X, y, domain = images
    with pytest.raises(ValueError, match=message):
        FineTunedClassifier(**{**SHORT, **changes}).fit(X, y, sample_domain=domain)


def test_a_fit_without_one_of_the_domains_is_an_error(images):
    X, y, domain = images
    classifier = FineTunedClassifier(**SHORT, adapt="mcc")
    for given in ({"sample_domain": np.abs(domain)}, {}):
        with pytest.raises(ValueError, match="adapt='mcc' needs images of a target domain in fit"):
            classifier.fit(X, y, **given)
    for estimator in (classifier, FineTunedClassifier(**SHORT), FineTunedRegressor(**SHORT)):
        with pytest.raises(ValueError, match="none of the 48 images is of a source domain"):
            estimator.fit(X, y, sample_domain=-np.abs(domain))
    with pytest.raises(ValueError, match="y has 24 entries, X has 48"):
        classifier.fit(X, y[:24], sample_domain=domain)


def test_images_of_the_target_without_a_deviation_are_an_error(images, tmp_path):
    X, y, domain = images
    classifier = FineTunedClassifier(**SHORT, adapt="mcc")
    with pytest.raises(ValueError, match="and 1 of them is left; give two at least"):
        classifier.fit(X[:25], y[:25], sample_domain=domain[:25])
    cells = np.empty(48, dtype=object)
    cells[:24], cells[24:] = list(X[:24]), str(tmp_path / "missing.png")
    with (
        pytest.warns(UnreadableImageWarning, match="24 of 48"),
        pytest.raises(ValueError, match="and 0 of them are left"),
    ):
        classifier.set_params(on_error="skip").fit(cells, y, sample_domain=domain)
    with pytest.raises(ValueError, match="set batch_size=2 at least"):
        classifier.set_params(batch_size=1).fit(X, y, sample_domain=domain)
    classifier.set_params(freeze_depth=None).fit(X, y, sample_domain=domain)


def test_what_can_not_go_on_or_has_several_labels_is_an_error(images, adapted):
    X, y, domain = images
    classifier = FineTunedClassifier(**SHORT, adapt="mcc")
    with pytest.raises(ValueError, match="use fit with warm_start=False, not partial_fit"):
        classifier.partial_fit(X, y)
    again = pickle.loads(pickle.dumps(adapted)).set_params(warm_start=True)
    with pytest.raises(ValueError, match="adapt='mcc' trains from the pretrained network"):
        again.fit(X, y, sample_domain=domain)
    with pytest.raises(ValueError, match="adapt=None was 'mcc' when training began"):
        again.set_params(adapt=None).fit(X, y)
    with pytest.raises(ValueError, match="adapt='mcc' needs one label an image"):
        classifier.fit(X, np.stack([y, 1 - y], axis=1), sample_domain=domain)
    with pytest.raises(ValueError, match="sample_domain can't be given to FineTunedTransformer"):
        FineTunedTransformer(FineTunedClassifier(**SHORT)).fit(X, y, sample_domain=domain)
    masked = np.where(domain > 0, y, -1)
    with pytest.raises(ValueError, match="adapt='mcc' of the estimator has no place in FineTun"):
        FineTunedTransformer(classifier).fit_transform(X, masked)


def test_a_table_of_paths_and_a_series_of_labels_are_split_too(images, adapted):
    X, y, domain = images
    table = pd.DataFrame({"image": list(X)})
    fitted = FineTunedClassifier(**SHORT, adapt="mcc").fit(
        table, pd.Series(y, index=np.arange(48) + 100), sample_domain=pd.Series(domain)
    )
    np.testing.assert_array_equal(fitted.predict_proba(table), adapted.predict_proba(X))


def test_requests_of_metadata_are_those_of_skadas_base_classes():
    of_predictions = {"sample_domain": True, "allow_source": True}
    for kind, methods in (
        (FineTunedClassifier, ("predict", "predict_proba", "decision_function")),
        (FineTunedRegressor, ("predict",)),
    ):
        requests = get_routing_for_object(kind())
        assert requests.fit.requests["sample_domain"] is True
        for method in methods:
            assert getattr(requests, method).requests == of_predictions
        assert requests.score.requests == {"sample_weight": None, **of_predictions}
