"""What both fine-tuned estimators do with each of their parameters."""

import functools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss
from skorch.callbacks import Callback, LRScheduler
from torch import nn
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier, FineTunedRegressor, count_forward_passes
from sktransfer.exceptions import ImageReadError
from sktransfer.training._checkpoint import Checkpoint

FAST = {
    "backbone": "mini",
    "recipe": "fast",
    "image_size": 32,
    "max_epochs": 4,
    "batch_size": 8,
    "random_state": 0,
}


def weights_of(fitted):
    return torch.cat([value.flatten() for value in fitted.net_.module_.state_dict().values()])


@pytest.fixture
def numbers(shapes):
    """Return the paths of the shapes and a number for each."""
    X, y = shapes
    return X, (y == "disc") * 50.0 + 100


# weights


@pytest.mark.parametrize("freeze_depth", [None, -1])
def test_images_of_weight_zero_are_as_if_they_were_not_there(shapes, freeze_depth):
    X, y = shapes
    weight = np.ones(len(X))
    weight[[0, 5, 9]] = 0
    weighted = FineTunedClassifier(**FAST, freeze_depth=freeze_depth).fit(X, y, weight)
    without = FineTunedClassifier(**FAST, freeze_depth=freeze_depth).fit(
        X[weight > 0], y[weight > 0]
    )
    np.testing.assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))


def test_an_unreadable_image_is_named_by_its_place_in_x_whatever_weighs_nothing(shapes, tmp_path):
    X, _ = shapes
    X = [*X[:6], str(tmp_path / "missing.png")]
    weight = [0, 1, 0, 1, 1, 1, 1]
    with pytest.raises(ImageReadError, match=r"1 of 7 .*\n.*X\[6\] .*missing"):
        FineTunedClassifier(**FAST).fit(X, ["a", "b", "c", "a", "b", "a", "b"], weight)


def test_an_image_of_weight_two_is_two_images_where_only_a_linear_head_trains(shapes):
    X, y = shapes
    weight = 1 + np.arange(len(X)) % 3
    frozen = {**FAST, "freeze_depth": None, "batch_size": "auto"}
    weighted = FineTunedClassifier(**frozen).fit(X, y, weight)
    repeated = FineTunedClassifier(**frozen).fit(np.repeat(X, weight), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "message"),
    [([-1.0, 1, 1], r"negative, got -1.0 for X\[0\]"), ([0, 0, 0], "at least one non-zero")],
)
def test_weights_that_make_no_sense_are_an_error(shapes, weight, message):
    X, _ = shapes
    with pytest.raises(ValueError, match=message):
        FineTunedClassifier(**FAST).fit(X[:3], ["a", "b", "a"], weight)


def test_balanced_classes_weigh_the_inverse_of_how_often_they_are_fitted(shapes):
    X, y = shapes
    chosen = np.r_[0:16, 17, 19]  # fewer discs than squares
    X, y = X[chosen], np.where(np.isin(chosen, [1, 3, 5, 7, 9]), "square", y[chosen])
    counts = dict(zip(*np.unique(y, return_counts=True), strict=True))
    balanced = FineTunedClassifier(**FAST, class_weight="balanced").fit(X, y)
    by_class = FineTunedClassifier(
        **FAST, class_weight={label: len(y) / (2 * n) for label, n in counts.items()}
    ).fit(X, y)
    assert weights_of(balanced).equal(weights_of(by_class))
    assert not weights_of(balanced).equal(weights_of(FineTunedClassifier(**FAST).fit(X, y)))


# multilabel


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("freeze_depth", [None, -1])
def test_a_matrix_of_labels_is_multilabel(shapes, freeze_depth, class_weight):
    X, y = shapes
    labels = np.stack([y == "disc", y == "square", np.ones(len(y))], axis=1).astype(int)
    options = {**FAST, "max_epochs": 15, "class_weight": class_weight}
    fitted = FineTunedClassifier(**options, freeze_depth=freeze_depth).fit(X, labels)
    assert fitted.classes_.tolist() == [0, 1, 2]
    probabilities = fitted.predict_proba(X)
    np.testing.assert_array_equal(fitted.predict(X), probabilities > 0.5)
    np.testing.assert_array_equal(fitted.decision_function(X) > 0, probabilities > 0.5)
    assert fitted.score(X, labels) >= 0.9


def test_multilabel_and_classes_by_weight_do_not_go_together(shapes):
    X, y = shapes
    labels = np.stack([y == "disc", y == "square"], axis=1).astype(int)
    with pytest.raises(ValueError, match=r"no meaning for multilabel.*'balanced'"):
        FineTunedClassifier(**FAST, class_weight={0: 2}).fit(X, labels)


# validation


def test_early_stopping_holds_out_a_share_in_the_proportions_of_the_classes(shapes):
    X, y = shapes
    seen = {}

    class Counting(Callback):
        def on_train_begin(self, net, X, **kwargs):
            seen["train"] = len(X)
            seen["held out"] = net.train_split.validation.targets.sum(0).tolist()

    options = {**FAST, "early_stopping": True, "validation_fraction": 0.25}
    fitted = FineTunedClassifier(**options, callbacks=[Counting()]).fit(X, y)
    assert seen == {"train": 18, "held out": [3, 3]}
    assert 1 <= fitted.best_epoch_ <= fitted.n_iter_
    assert {"valid_loss", "valid_score"} <= fitted.history_[0].keys()


def test_given_images_are_validated_on_and_all_others_trained_on(shapes):
    X, y = shapes
    seen = {}

    class Counting(Callback):
        def on_train_begin(self, net, X, **kwargs):
            seen["train"] = len(X)

    stopping = FineTunedClassifier(**FAST, early_stopping=True, callbacks=[Counting()])
    fitted = stopping.fit(X[:16], y[:16], X_val=X[16:], y_val=y[16:])
    assert seen == {"train": 16}
    best = fitted.history_[fitted.best_epoch_ - 1]
    assert best["valid_score"] == pytest.approx(fitted.score(X[16:], y[16:]))


@pytest.mark.parametrize("class_weight", [{"disc": 9.0, "square": 1.0}, "balanced"])
def test_the_validation_loss_weighs_classes_as_the_training_loss_does(shapes, class_weight):
    X, y = shapes
    train = np.r_[0:12:2, 1:6:2]  # six squares and three discs
    X_val, y_val = X[12:], np.where(np.arange(12) < 3, "disc", y[12:])  # not all of it is learned
    factor = {"disc": 9.0, "square": 1.0} if class_weight != "balanced" else {"disc": 2.0}
    weights = np.array([factor.get(label, 1.0) for label in y_val])
    stopping = FineTunedClassifier(**FAST, early_stopping=True, class_weight=class_weight)
    fitted = stopping.fit(X[train], y[train], X_val=X_val, y_val=y_val)
    best = fitted.history_[fitted.best_epoch_ - 1]
    probabilities = fitted.predict_proba(X_val)
    weighted = log_loss(y_val, probabilities, sample_weight=weights)
    assert best["valid_loss"] == pytest.approx(weighted, rel=1e-4)
    assert weighted != pytest.approx(log_loss(y_val, probabilities), rel=0.1)
    # a score counts images, as that of the estimator does
    assert best["valid_score"] == pytest.approx(fitted.score(X_val, y_val))


def test_what_is_held_out_weighs_as_what_is_trained_on(shapes):
    X, y = shapes
    seen = {}

    class Watching(Callback):
        def on_train_begin(self, net, X, **kwargs):
            validation = net.train_split.validation
            for title, part in (("train", X), ("held out", validation)):
                is_disc = part.targets[:, 0] == 1
                weights = part.weights[is_disc].mean() / part.weights[~is_disc].mean()
                seen[title] = weights.item()
            seen["counts"] = validation.counts.tolist()

    options = {**FAST, "early_stopping": True, "validation_fraction": 0.25}
    weighted = FineTunedClassifier(**options, class_weight={"disc": 3}, callbacks=[Watching()])
    weighted.fit(X, y, np.full(len(X), 2.0))
    assert seen == {
        "train": pytest.approx(3),
        "held out": pytest.approx(3),
        "counts": [2.0] * 6,
    }


def test_the_validation_loss_balances_labels_as_the_training_loss_does(shapes):
    X, y = shapes
    labels = np.stack([y == "disc", np.arange(len(y)) % 5 == 0], axis=1).astype(int)
    stopping = FineTunedClassifier(**FAST, early_stopping=True, class_weight="balanced")
    fitted = stopping.fit(X[:16], labels[:16], X_val=X[16:], y_val=labels[16:])
    present = labels[:16].mean(axis=0)
    weights = np.where(labels[16:] == 1, 0.5 / present, 0.5 / (1 - present))
    probabilities = fitted.predict_proba(X[16:])
    losses = -np.log(np.where(labels[16:] == 1, probabilities, 1 - probabilities))
    best = fitted.history_[fitted.best_epoch_ - 1]
    assert best["valid_loss"] == pytest.approx((weights * losses).mean(), rel=1e-4)


def test_validation_images_that_all_weigh_nothing_are_an_error(shapes):
    X, y = shapes
    discs = y == "disc"
    stopping = FineTunedClassifier(**FAST, early_stopping=True, class_weight={"disc": 0})
    with pytest.raises(ValueError, match=r"class_weight=.* weight 0 to all images of y_val;"):
        stopping.fit(X, y, X_val=X[discs], y_val=y[discs])


def test_training_images_that_all_weigh_nothing_are_an_error(shapes):
    X, y = shapes
    discs = y == "disc"
    classifier = FineTunedClassifier(**FAST, class_weight={"disc": 0})
    with pytest.raises(ValueError, match=r"class_weight=.* weight 0 to all images of y;"):
        classifier.partial_fit(X[discs], y[discs], classes=["disc", "square"])


def test_nothing_is_held_out_unasked(shapes):
    fitted = FineTunedClassifier(**FAST).fit(*shapes)
    assert not hasattr(fitted, "best_epoch_")
    assert "valid_loss" not in fitted.history_[0]


def test_too_few_images_to_hold_out_are_a_clear_error(shapes):
    X, y = shapes
    with pytest.raises(ValueError, match=r"validation_fraction=0.1 of 4 images.*X_val"):
        FineTunedClassifier(**FAST, early_stopping=True).fit(X[:4], y[:4])


# going on


class InterruptAtEpoch(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def interrupt(monkeypatch):
    """Return a context in which a fit is interrupted when so many epochs have been saved."""

    @contextmanager
    def interrupted_after(n_epochs):
        save, n_saved = Checkpoint.save, count(1)

        def save_and_interrupt(checkpoint, state):
            save(checkpoint, state)
            if next(n_saved) == n_epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "save", save_and_interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupted_after


@pytest.mark.parametrize("augment", [None, "light"])
def test_an_interrupted_fit_raises_and_resumes_to_the_same_weights(
    shapes, tmp_path, augment, interrupt, monkeypatch
):
    X, y = shapes
    options = {**FAST, "dropout": 0.2, "augment": augment}
    whole = FineTunedClassifier(**options).fit(X, y)
    keeping = FineTunedClassifier(**options, checkpoint_dir=tmp_path / "fits")
    with interrupt(2):
        keeping.fit(X, y)
    assert not hasattr(keeping, "n_iter_")
    trained, save = [], Checkpoint.save

    def save_and_count(checkpoint, state):
        trained.append(state["history"][-1]["epoch"])
        save(checkpoint, state)

    monkeypatch.setattr(Checkpoint, "save", save_and_count)
    resumed = keeping.fit(X, y)
    assert trained == [3, 4]
    assert weights_of(resumed).equal(weights_of(whole))
    assert [record["epoch"] for record in resumed.history_] == [1, 2, 3, 4]
    assert list((tmp_path / "fits").iterdir()) == []


@pytest.mark.parametrize("replay", [0, 24])
def test_an_interrupted_partial_fit_resumes_to_the_same_weights(
    shapes, tmp_path, replay, interrupt, monkeypatch
):
    X, y = shapes
    options = {**FAST, "freeze_depth": None, "replay": replay}
    whole = FineTunedClassifier(**options).partial_fit(X[:12], y[:12])
    whole.partial_fit(X[12:], y[12:])
    keeping = FineTunedClassifier(**options, checkpoint_dir=tmp_path).partial_fit(X[:12], y[:12])
    with interrupt(3):
        keeping.partial_fit(X[12:], y[12:])
    n_saved, save = [], Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", lambda *args: n_saved.append(save(*args)))
    assert weights_of(keeping.partial_fit(X[12:], y[12:])).equal(weights_of(whole))
    assert len(n_saved) == 1


def head_with_dropout(p):
    """Return a head that a factory makes: one code, and a value in its closure."""
    return lambda n_in, n_out: nn.Sequential(nn.Dropout(p), nn.Linear(n_in, n_out))


class Scaling(Callback):
    def __init__(self, factor):
        self.factor = factor

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for _, parameter in named_parameters:
            parameter.grad.mul_(self.factor)


OTHER_CHOICES = [
    ({}, {"lr": 0.01}),
    ({}, {"freeze_depth": -1}),
    ({}, {"random_state": 1}),
    ({"head": head_with_dropout(0.1)}, {"head": head_with_dropout(0.5)}),
    ({"callbacks": [Scaling(0.1)]}, {"callbacks": [Scaling(0.5)]}),
    ({"callbacks": [Scaling(0.1)]}, {}),
    ({"net_params": {"predict_nonlinearity": None}}, {}),
    (
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.1}},
        {"optimizer": "sgd", "optimizer_params": {"momentum": 0.5}},
    ),
    # the same first views of all images, as next to nothing is flipped
    (
        {"augment": v2.RandomHorizontalFlip(1e-9)},
        {"augment": v2.RandomHorizontalFlip(1e-8)},
    ),
]


@pytest.mark.parametrize(("choices", "others"), OTHER_CHOICES)
def test_a_fit_with_another_choice_never_resumes(shapes, tmp_path, interrupt, choices, others):
    X, y = shapes
    with interrupt(2):
        FineTunedClassifier(**{**FAST, **choices}, checkpoint_dir=tmp_path).fit(X, y)
    other = {**FAST, **others}
    fitted = FineTunedClassifier(**other, checkpoint_dir=tmp_path).fit(X, y)
    assert [path.suffix for path in tmp_path.iterdir()] == [".sktransfer-checkpoint"]
    assert weights_of(fitted).equal(weights_of(FineTunedClassifier(**other).fit(X, y)))


def test_weights_of_images_and_of_classes_with_one_product_never_resume_each_other(
    shapes, tmp_path, interrupt
):
    # the weights in the loss are the same, those that features are standardised by are not
    X, y = shapes
    by_image = FineTunedClassifier(**FAST, checkpoint_dir=tmp_path)
    with interrupt(2):
        by_image.fit(X, y, np.where(y == "disc", 5.0, 1.0))
    by_class = {**FAST, "class_weight": {"disc": 5.0}}
    fitted = FineTunedClassifier(**by_class, checkpoint_dir=tmp_path).fit(X, y)
    assert weights_of(fitted).equal(weights_of(FineTunedClassifier(**by_class).fit(X, y)))


def test_candidates_whose_heads_a_factory_made_resume_their_own_training(
    shapes, tmp_path, interrupt
):
    X, y = shapes
    heads = [head_with_dropout(p) for p in (0.1, 0.5)]
    for head in heads:
        with interrupt(2):
            FineTunedClassifier(**FAST, head=head, checkpoint_dir=tmp_path).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 2
    for head in heads:
        resumed = FineTunedClassifier(**FAST, head=head, checkpoint_dir=tmp_path).fit(X, y)
        whole = FineTunedClassifier(**FAST, head=head).fit(X, y)
        assert weights_of(resumed).equal(weights_of(whole))


@pytest.mark.parametrize(
    "choice",
    [
        {"head": functools.partial(lambda lock, n_in, n_out: None, threading.Lock())},
        {"callbacks": [Scaling(threading.Lock())]},
        {"net_params": {"predict_nonlinearity": functools.partial(print, threading.Lock())}},
        {"augment": functools.partial(lambda lock, image: image, threading.Lock())},
    ],
    ids=lambda choice: next(iter(choice)),
)
def test_a_choice_without_a_name_is_an_error_before_any_image_is_read(tmp_path, choice):
    (parameter,) = choice
    nameless = FineTunedClassifier(**FAST, **choice, checkpoint_dir=tmp_path)
    with pytest.raises(
        ValueError, match=rf"(?s)checkpoint_dir needs.*{parameter}=.*_thread\.lock.*=None"
    ):
        nameless.fit(["missing.png"] * 2, ["a", "b"])


def test_warm_start_goes_on_from_the_weights_of_the_last_fit(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**FAST, warm_start=True, dropout=0, label_smoothing=0).fit(
        X, y
    )
    first, before = classifier.history_[0]["train_loss"], weights_of(classifier)
    again = classifier.fit(X, y)
    assert again.history_[0]["train_loss"] < first
    assert not weights_of(again).equal(before)
    with pytest.raises(ValueError, match=r"freeze_depth=-2 was 'auto' when training began"):
        classifier.set_params(freeze_depth=-2).fit(X, y)
    with pytest.raises(ValueError, match="classes that the classifier does not know: 'star'"):
        classifier.set_params(freeze_depth="auto").fit(X[:2], ["disc", "star"])


def test_partial_fit_takes_the_classes_of_its_first_call_only(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**FAST)
    classifier.partial_fit(X[:8], y[:8], classes=["disc", "square", "star"])
    assert classifier.predict_proba(X[:2]).shape == (2, 3)
    classifier.partial_fit(X[8:], np.where(y[8:] == "disc", "star", y[8:]))
    with pytest.raises(ValueError, match=r"does not know: 'moon'.*classes="):
        classifier.partial_fit(X[:2], ["moon", "disc"])


def test_replay_keeps_old_classes_from_being_forgotten(shapes):
    X, y = shapes
    new = np.flatnonzero(y == "square")
    options = {**FAST, "max_epochs": 8, "freeze_depth": -2, "lr": 0.01, "backbone_lr_scale": 1.0}
    # which slow forgetting down
    options |= {"dropout": 0, "label_smoothing": 0, "max_grad_norm": None}

    def recall_of_discs(replay):
        classifier = FineTunedClassifier(**options, replay=replay).fit(X, y)
        for _ in range(5):
            classifier.partial_fit(X[new], y[new])
        return np.mean(classifier.predict(X[y == "disc"]) == "disc")

    assert recall_of_discs(0) < 0.5
    assert recall_of_discs(16) >= 0.9


def test_replay_holds_images_of_every_call_of_partial_fit(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**{**FAST, "max_epochs": 1}, freeze_depth=None, replay=6)
    held = np.zeros(4)
    for seed in range(20):
        classifier = clone(classifier).set_params(random_state=seed)
        for call in range(4):
            X_call, y_call = X[6 * call : 6 * call + 6], y[6 * call : 6 * call + 6]
            # the weight tells in which call an image came
            classifier.partial_fit(X_call, y_call, sample_weight=np.full(6, call + 1.0))
        assert classifier._replay.n_seen == 24
        held += np.bincount(classifier._replay.counts.astype(int) - 1, minlength=4)
    # 120 images from four calls: 30 of each, with a standard deviation below 4.8
    assert held.sum() == 120
    assert np.all(np.abs(held - 30) < 5 * 4.8)


def test_a_partial_fit_that_fails_leaves_what_was_learned(shapes):
    X, y = shapes
    classifier = FineTunedClassifier(**FAST).partial_fit(X, y)
    before = classifier.predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        classifier.set_params(callbacks=[InterruptAtEpoch(2)]).partial_fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


# augmentation


def test_stored_views_cost_one_forward_pass_each_and_are_read_by_the_next_fit(shapes, cache):
    X, y = shapes
    options = {**FAST, "max_epochs": 6, "feature_cache": cache, "augment": "light"}
    with count_forward_passes() as counter:
        FineTunedClassifier(**options, augment_views=2).fit(X, y)
    assert counter.computed == 2 * len(X)
    with count_forward_passes() as counter:
        FineTunedClassifier(**options, augment_views=2, lr=0.01).fit(X, y)
    assert counter.computed == 0


def test_without_augment_views_every_epoch_draws_its_own(shapes, cache):
    X, y = shapes
    options = {**FAST, "feature_cache": cache, "augment": "light", "augment_views": None}
    for _ in range(2):
        with count_forward_passes() as counter:
            FineTunedClassifier(**options).fit(X, y)
        assert counter.computed == FAST["max_epochs"] * len(X)


@pytest.mark.parametrize("augment", ["light", "medium", "trivial", v2.RandomHorizontalFlip()])
def test_augmentation_changes_training_and_images_to_predict_are_at_most_mirrored(shapes, augment):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, augment=augment, augment_views=2).fit(X, y)
    assert not weights_of(fitted).equal(weights_of(FineTunedClassifier(**FAST).fit(X, y)))
    again = FineTunedClassifier(**FAST, augment=augment, augment_views=2).fit(X, y)
    assert weights_of(fitted).equal(weights_of(again))
    with count_forward_passes() as counter:
        fitted.predict(X)
    n_views = 1 if callable(augment) else 2
    assert counter.cache_hits + counter.computed == n_views * len(X)


def test_images_are_augmented_with_nothing_frozen(shapes):
    X, y = shapes
    options = {**FAST, "max_epochs": 2, "freeze_depth": 0}
    plain = FineTunedClassifier(**options).fit(X, y)
    augmented = FineTunedClassifier(**options, augment="light").fit(X, y)
    assert not weights_of(augmented).equal(weights_of(plain))


def test_test_time_augmentation_is_a_mean_over_views(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, augment="light").fit(X, y)
    plain = fitted.predict_proba(X)
    three = fitted.set_params(tta=3).predict_proba(X)
    assert not np.allclose(three, plain)
    np.testing.assert_array_equal(three, fitted.predict_proba(X))
    np.testing.assert_allclose(three.sum(1), 1)
    views = np.exp([fitted._targets.log_probabilities(v)[0] for v in fitted._outputs_of_views(X)])
    np.testing.assert_allclose(views.mean(0), three)


@pytest.mark.parametrize(("mix", "freeze_depth"), [("mixup", None), ("mixup", 0), ("cutmix", -1)])
def test_mixing_changes_training_the_same_way_each_time(shapes, mix, freeze_depth):
    X, y = shapes
    options = {**FAST, "max_epochs": 2, "freeze_depth": freeze_depth}
    one, other = (FineTunedClassifier(**options, mix=mix).fit(X, y) for _ in range(2))
    assert weights_of(one).equal(weights_of(other))
    assert not weights_of(one).equal(weights_of(FineTunedClassifier(**options).fit(X, y)))


# how it trains


def test_gradual_unfreezing_trains_one_stage_more_every_few_epochs(shapes):
    X, y = shapes
    training = []

    class Watching(Callback):
        def on_batch_end(self, net, **kwargs):
            stages = net.module_.trained_stages()
            training.append(sum(any(p.requires_grad for p in s.parameters()) for s in stages))

    options = {**FAST, "max_epochs": 6, "freeze_depth": -2, "unfreeze_every": 2}
    fitted = FineTunedClassifier(**options, callbacks=[Watching()]).fit(X, y)
    assert training == [0] * 6 + [1] * 6 + [2] * 6
    assert all(p.requires_grad for p in fitted.net_.module_.parameters())


def test_the_number_of_epochs_follows_from_the_size_of_the_data(shapes):
    X, y = shapes
    by_size = {**FAST, "max_epochs": None, "batch_size": 1}
    assert FineTunedClassifier(**by_size).fit(X, y).n_iter_ == round(200 / 24)


@pytest.mark.parametrize("freeze_depth", [-1, None])
def test_batch_size_auto_is_all_images_where_the_best_head_is_unique(shapes, freeze_depth):
    X, y = shapes
    seen = []

    class Watching(Callback):
        def on_batch_end(self, net, batch, **kwargs):
            seen.append(len(batch[0]))

    options = {**FAST, "batch_size": "auto", "max_epochs": 1, "freeze_depth": freeze_depth}
    FineTunedClassifier(**options, callbacks=[Watching()]).fit(np.repeat(X, 2), np.repeat(y, 2))
    assert seen == ([32, 16] if freeze_depth == -1 else [48])


def test_net_params_reach_skorch(shapes):
    class Named(Callback):
        pass

    options = {"callbacks": [("mine", Named())], "net_params": {"callbacks__mine": None}}
    fitted = FineTunedClassifier(**FAST, **options).fit(*shapes)
    assert "mine" not in dict(fitted.net_.callbacks_)


def test_the_history_makes_a_table(shapes):
    fitted = FineTunedClassifier(**FAST).fit(*shapes)
    table = pd.DataFrame(fitted.history_)
    assert table["epoch"].tolist() == [1, 2, 3, 4]
    assert {"train_loss", "lr", "dur"} <= set(table.columns)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1}, r"'dropout' parameter.*Got 1"),
        ({"dropout": 0.5, "head": torch.nn.Linear}, r"dropout=0.5 has no place"),
        ({"optimizer": "lbfgs"}, r"'optimizer' parameter.*Got 'lbfgs'"),
        ({"optimizer": torch.optim.LBFGS}, r"optimizer=.*groups of parameters"),
        ({"optimizer_params": {"lr": 1}}, r"optimizer_params must not hold 'lr'.*lr="),
        ({"optimizer_params": {"momentum": 1}}, r"optimizer='adamw'.*momentum"),
        ({"layer_decay": 0}, r"'layer_decay' parameter.*Got 0"),
        ({"max_grad_norm": 0}, r"'max_grad_norm' parameter.*Got 0"),
        ({"batch_norm": "eval"}, r"'batch_norm' parameter.*Got 'eval'"),
        ({"batch_size": "all"}, r"'batch_size' parameter.*Got 'all'"),
        ({"unfreeze_every": 0}, r"'unfreeze_every' parameter.*Got 0"),
        ({"training_precision": "float16"}, r"'training_precision' parameter.*Got 'float16'"),
        ({"augment": "strong"}, r"augment must be.*'light'.*got 'strong'"),
        ({"augment_views": 2}, r"augment_views=2 needs.*augment='light'"),
        ({"tta": 2}, r"tta=2 needs.*augment='light'"),
        ({"tta": 0}, r"'tta' parameter.*Got 0"),
        ({"mix": "both"}, r"'mix' parameter.*Got 'both'"),
        ({"mix_alpha": 0}, r"'mix_alpha' parameter.*Got 0"),
        ({"mix": "cutmix", "freeze_depth": None}, r"mix='cutmix' needs.*freeze_depth=None.*mixup"),
        ({"early_stopping": "yes"}, r"'early_stopping' parameter.*Got 'yes'"),
        ({"validation_fraction": 1}, r"'validation_fraction' parameter.*Got 1"),
        ({"n_iter_no_change": 0}, r"'n_iter_no_change' parameter.*Got 0"),
        ({"checkpoint_dir": 1}, r"'checkpoint_dir' parameter.*Got 1"),
        ({"replay": -1}, r"'replay' parameter.*Got -1"),
        ({"warm_start": 2}, r"'warm_start' parameter.*Got 2"),
        ({"callbacks": Callback()}, r"'callbacks' parameter"),
        ({"net_params": {"lr": 1}}, r"net_params must not hold 'lr'"),
        ({"net_params": {"optimizer__eps": 1}}, r"net_params must not hold 'optimizer__eps'"),
        ({"net_params": {"no_such": 1}}, r"net_params has 'no_such'.*compile"),
    ],
)
@pytest.mark.parametrize("estimator", [FineTunedClassifier, FineTunedRegressor])
def test_a_wrong_parameter_or_combination_says_what_to_do(numbers, estimator, wrong, message):
    X, y = numbers
    with pytest.raises((TypeError, ValueError), match=message):
        estimator(**{**FAST, **wrong}).fit(X, y.astype(int))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_val": ["a.png"]}, "X_val is given without y_val"),
        ({"y_val": ["disc"]}, "y_val is given without X_val"),
        ({"X_val": ["a.png"], "y_val": ["disc"]}, "set early_stopping=True"),
    ],
)
def test_validation_data_that_would_not_be_used_are_an_error(shapes, given, message):
    with pytest.raises(ValueError, match=message):
        FineTunedClassifier(**FAST).fit(*shapes, **given)


# what a second look found


@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_training_that_diverges_is_an_error_and_no_estimator(numbers, early_stopping):
    X, y = numbers
    for estimator, target in ((FineTunedClassifier, y.astype(int)), (FineTunedRegressor, y)):
        wild = estimator(**{**FAST, "lr": 1e9}, early_stopping=early_stopping, optimizer="sgd")
        with pytest.raises(ValueError, match=r"training diverged.*lr=1000000000"):
            wild.fit(X, target)
        assert not hasattr(wild, "n_iter_")


def test_labels_of_another_kind_are_unknown_even_if_they_read_alike(shapes):
    X, _ = shapes
    classifier = FineTunedClassifier(**FAST).partial_fit(X[:4], [2, 10, 2, 10])
    with pytest.raises(ValueError, match="does not know: '10', '2'"):
        classifier.partial_fit(X[:2], ["2", "10"])


def test_a_matrix_with_other_values_than_0_and_1_is_no_multilabel_target(shapes):
    X, _ = shapes
    with pytest.raises(ValueError, match=r"must hold 0 and 1 only, got \[1, 2\]"):
        FineTunedClassifier(**FAST).fit(X[:2], [[1, 2], [2, 1]])


def test_a_fit_that_goes_on_never_resumes_one_that_starts(shapes, tmp_path, interrupt):
    X, y = shapes
    warm = FineTunedClassifier(**FAST, checkpoint_dir=tmp_path, warm_start=True).fit(X, y)
    with interrupt(2):
        warm.fit(X, y)
    fresh = FineTunedClassifier(**FAST, checkpoint_dir=tmp_path).fit(X, y)
    assert weights_of(fresh).equal(weights_of(FineTunedClassifier(**FAST).fit(X, y)))


def test_balanced_classes_take_weight_two_for_two_images(shapes):
    X, y = shapes
    weight = 1 + np.arange(len(X)) % 3
    frozen = {**FAST, "freeze_depth": None, "batch_size": "auto", "class_weight": "balanced"}
    weighted = FineTunedClassifier(**frozen).fit(X, y, weight)
    repeated = FineTunedClassifier(**frozen).fit(np.repeat(X, weight), np.repeat(y, weight))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("class_weight", [{"disc": -1}, {"star": 2}, {"disc": 0, "square": 0}])
def test_class_weights_that_make_no_sense_are_an_error(shapes, class_weight):
    with pytest.raises(ValueError, match=r"class_weight=.*must have the classes"):
        FineTunedClassifier(**FAST, class_weight=class_weight).fit(*shapes)


def test_what_partial_fit_can_not_do_it_refuses(shapes):
    X, y = shapes
    with pytest.raises(ValueError, match="can't be computed in partial_fit"):
        FineTunedClassifier(**FAST, class_weight="balanced").partial_fit(X, y)
    classifier = FineTunedClassifier(**FAST).partial_fit(X, y)
    with pytest.raises(ValueError, match="are not those of the first call"):
        classifier.partial_fit(X, y, classes=["disc", "star"])


def test_a_head_without_parameters_is_an_error_only_where_nothing_else_trains(shapes):
    X, y = shapes

    def head(n_in, n_out):
        return nn.AdaptiveAvgPool1d(n_out)

    fitted = FineTunedClassifier(**FAST, head=head).fit(X, y)
    assert fitted.predict_proba(X).shape == (len(X), 2)
    with pytest.raises(ValueError, match=r"no parameter is trained.*freeze_depth"):
        FineTunedClassifier(**FAST, head=head, freeze_depth=None).fit(X, y)


@pytest.mark.parametrize("freeze_depth", [None, -1, 0])
@pytest.mark.parametrize("is_loaded", [False, True])
def test_threads_predict_at_once_with_one_fitted_estimator_and_never_change_it(
    shapes, freeze_depth, is_loaded
):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=freeze_depth, dropout=0.3).fit(X, y)
    if is_loaded:
        fitted = pickle.loads(pickle.dumps(fitted))
    expected = fitted.predict_proba(X)

    def changed(*args, **kwargs):
        raise AssertionError("a fitted module is changed in place")

    for module in fitted.net_.module_.modules():
        for name in ("train", "_apply", "requires_grad_", "load_state_dict"):
            setattr(module, name, changed)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: fitted.predict_proba(X), range(12)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"callbacks": [LRScheduler()]}, "must not hold skorch's LRScheduler"),
        ({"callbacks": [("rates", LRScheduler())]}, "must not hold skorch's LRScheduler"),
        ({"unfreeze_every": 4}, "unfreeze_every=4 leaves no epoch of 4"),
    ],
)
def test_what_would_have_no_effect_is_an_error(shapes, wrong, message):
    with pytest.raises(ValueError, match=message):
        FineTunedClassifier(**{**FAST, **wrong}).fit(*shapes)


def test_views_for_prediction_need_an_augmentation(shapes):
    fitted = FineTunedClassifier(**FAST).fit(*shapes).set_params(tta=3)
    with pytest.raises(ValueError, match=r"tta=3 needs.*augment='light'"):
        fitted.predict(shapes[0])


def test_one_image_that_is_left_over_joins_the_last_batch(shapes):
    X, y = shapes

    def head(n_in, n_out):
        return torch.nn.Sequential(torch.nn.BatchNorm1d(n_in), torch.nn.Linear(n_in, n_out))

    fitted = FineTunedClassifier(**FAST, head=head).fit(X[:17], y[:17])
    assert fitted.predict(X).shape == y.shape


def test_what_was_saved_predicts_the_same_to_the_last_bit(shapes):
    X, y = shapes
    fitted = FineTunedClassifier(**FAST, freeze_depth=-2).fit(X, y)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
