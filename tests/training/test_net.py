import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sktransfer.exceptions import SlowFitWarning
from sktransfer.training import _epochs
from sktransfer.training._augmented import AugmentedActivations
from sktransfer.training._checkpoint import Checkpoint
from sktransfer.training._config import TrainingConfig
from sktransfer.training._data import TrainingSet
from sktransfer.training._head import TrainablePart
from sktransfer.training._inference import outputs
from sktransfer.training._net import make_net, records
from sktransfer.training._optim import WeightedLoss

CPU = torch.device("cpu")


def training_set(n=40, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)[(X[:, 0] > 0).astype(int)]
    return TrainingSet(AugmentedActivations.fixed(X), targets, *np.ones((2, n)))


def net(head=None, config=None, stages=None, **changes):
    torch.manual_seed(0)
    config = config or TrainingConfig(lr=0.05, weight_decay=0.0)
    part = TrainablePart(stages or nn.Identity(), head or nn.Linear(6, 2))
    options = {"n_epochs": 20, "batch_size": 8, "seed": 0, "device": CPU, **changes}
    return make_net(part, WeightedLoss("softmax"), config, **options)


def weights_of(fitted):
    return torch.cat([value.flatten() for value in fitted.module_.state_dict().values()])


def accuracy(fitted, data):
    logits = outputs(fitted.module_, data.views.of_epoch(0), CPU)
    return np.mean(logits.argmax(1) == data.targets.numpy().argmax(1))


@pytest.fixture(autouse=True)
def _own_random_state():
    with torch.random.fork_rng():
        yield


class Counting(Callback):
    def __init__(self):
        self.calls = []

    def on_batch_end(self, net, **kwargs):
        self.calls.append("batch")


def test_callbacks_are_called_in_each_step_by_methods_of_their_class_and_of_their_own():
    counting, by_hand = Counting(), Callback()
    by_hand.on_grad_computed = lambda net, **kwargs: counting.calls.append("gradients")
    callbacks = [("counting", counting), ("by_hand", by_hand)]
    net(callbacks=callbacks, n_epochs=1).fit(training_set())
    assert counting.calls == ["gradients", "batch"] * 5


class Adding(Callback):
    """Adds a callback and a parameter in the middle of training."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.added, self.gradients = Counting(), []

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) != self.epoch:
            return
        net.callbacks_.append(("added", self.added))
        offset = nn.Parameter(torch.zeros(2))
        net.module_.head.register_parameter("offset", offset)
        net.module_.head.register_forward_hook(lambda module, args, out: out + module.offset)
        group = {"params": [offset], "initial_lr": 0.1, "lr": 0.1, "weight_decay": 0.0}
        net.optimizer_.add_param_group(group)

    def on_grad_computed(self, net, **kwargs):
        if hasattr(net.module_.head, "offset"):
            parameters = list(net.module_.parameters())
            self.gradients.append(float(sum(p.grad.square().sum() for p in parameters)))


@pytest.mark.parametrize("epoch", [1, 2])
def test_what_a_callback_adds_in_training_is_trained_and_called(epoch):
    adding = Adding(epoch)
    config = TrainingConfig(lr=0.05, weight_decay=0.0, max_grad_norm=1e-3)
    net(callbacks=[("adding", adding)], config=config, n_epochs=2).fit(training_set())
    n_steps = 5 * (3 - epoch)
    assert len(adding.added.calls) == n_steps
    # those of one step, and the new parameter's among them
    np.testing.assert_allclose(adding.gradients, 1e-6, rtol=1e-2)
    assert len(adding.gradients) == n_steps


def test_a_net_tells_that_its_fit_takes_long(monkeypatch):
    monkeypatch.setattr(_epochs, "_SLOW_FIT", 0.0)
    with pytest.warns(SlowFitWarning, match=r"trains a head, .* \(20 epochs of 5 steps"):
        net().fit(training_set())  # 20 epochs of 5 steps
    with pytest.warns(SlowFitWarning, match="a head and 1 stage of"):
        net(stages=nn.Sequential(nn.Linear(6, 6))).fit(training_set())


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", torch.optim.RAdam])
def test_the_net_learns_what_can_be_learned(optimizer):
    data = training_set()
    fitted = net(config=TrainingConfig(lr=0.1, optimizer=optimizer), n_epochs=40).fit(data)
    assert accuracy(fitted, data) >= 0.9


def test_an_optimizer_gets_its_parameters():
    fitted = net(config=TrainingConfig(optimizer_params={"betas": (0.5, 0.6)}), n_epochs=1)
    assert fitted.fit(training_set()).optimizer_.param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainingConfig(optimizer_params={"momentum": 1}), "optimizer='adamw'.*momentum"),
        (TrainingConfig(optimizer=torch.optim.LBFGS), "optimizer=.*LBFGS.*groups of parameters"),
        (TrainingConfig(optimizer=dict), "optimizer=.*dict.*groups of parameters"),
    ],
)
def test_an_optimizer_that_can_not_be_made_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        net(config=config).fit(training_set())


def test_nothing_is_held_out():
    fitted = net(n_epochs=1).fit(training_set())
    assert sum(batch["train_batch_size"] for batch in fitted.history[0]["batches"]) == 40
    assert "valid_loss" not in fitted.history[0]


def test_the_rate_rises_falls_and_ends_near_zero():
    rates = []

    class Watching(Callback):
        def on_grad_computed(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    net(callbacks=[Watching()]).fit(training_set())
    assert len(rates) == 20 * 5
    assert max(rates) == pytest.approx(0.05)
    assert rates[0] < 0.2 * 0.05
    assert rates[-1] < 1e-3 * 0.05


def test_gradients_are_no_longer_than_their_limit():
    norms = []

    class Watching(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            grads = [parameter.grad.norm() for _, parameter in named_parameters]
            norms.append(torch.stack(grads).norm().item())

    net(config=TrainingConfig(max_grad_norm=0.01), callbacks=[Watching()]).fit(training_set())
    assert max(norms) <= 0.0101


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_stage_is_in_training_mode_but_for_frozen_batch_norm(batch_norm):
    modes = {}

    class Watching(nn.Identity):
        def forward(self, rows):
            modes[self.training] = modes.get(self.training, 0) + 1
            return rows

    data = training_set()
    stages = nn.Sequential(nn.BatchNorm1d(6), Watching()).eval()
    part = TrainablePart(stages, nn.Linear(6, 2), batch_norm)
    before = stages[0].running_mean.clone()
    options = {"n_epochs": 2, "batch_size": 8, "seed": 0, "device": CPU}
    make_net(
        part, WeightedLoss("softmax"), TrainingConfig(), validation=training_set(8, 1), **options
    ).fit(data)
    assert modes == {True: 10, False: 2}
    assert stages[0].running_mean.equal(before) == (batch_norm == "frozen")


def test_early_stopping_restores_the_best_epoch():
    config = TrainingConfig(lr=1.0, weight_decay=0.0, n_iter_no_change=3)
    noise = training_set(30, seed=1)
    noise.targets = noise.targets.roll(1, 0)
    fitted = net(config=config, validation=noise, n_epochs=60).fit(training_set())
    losses = [record["valid_loss"] for record in records(fitted)]
    best = int(np.argmin(losses)) + 1
    assert fitted.best_.epoch == best
    assert len(losses) == best + 3 < 60
    logits = torch.from_numpy(outputs(fitted.module_, noise.views.of_epoch(0), CPU))
    loss = WeightedLoss("softmax")(logits, (noise.targets, noise.weights))
    assert loss.item() == pytest.approx(losses[best - 1], rel=1e-5)


def test_records_are_plain_and_tell_the_score_on_what_is_held_out():
    validation = training_set(20, seed=1)
    config = TrainingConfig(lr=0.05, n_iter_no_change=50)
    fitted = net(config=config, validation=validation, n_epochs=3).fit(training_set())
    for number, record in enumerate(records(fitted), start=1):
        assert record.keys() >= {"epoch", "train_loss", "valid_loss", "valid_score", "lr", "dur"}
        assert record["epoch"] == number
        assert all(type(value) in (int, float, str) for value in record.values())


def test_a_user_who_interrupts_gets_an_interrupt():
    class Interrupting(nn.Linear):
        def forward(self, rows):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        net(Interrupting(6, 2)).fit(training_set())


def test_early_stopping_of_skorch_is_no_interrupt():
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=10, sink=lambda *_: None)
    fitted = net(callbacks=[stopping]).fit(training_set())
    assert len(fitted.history) < 20


class InterruptAfter(Callback):
    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def on_batch_begin(self, net, training=False, **kwargs):
        if len(net.history) > self.n_epochs:
            raise KeyboardInterrupt


@pytest.mark.parametrize("n_iter_no_change", [None, 50])
def test_an_interrupted_fit_goes_on_to_the_weights_of_one_that_was_not(tmp_path, n_iter_no_change):
    def started(**changes):
        torch.manual_seed(0)
        head = nn.Sequential(nn.Dropout(0.3), nn.Linear(6, 2))
        config = TrainingConfig(lr=0.05, mix="mixup", n_iter_no_change=n_iter_no_change)
        validation = None if n_iter_no_change is None else training_set(20, seed=1)
        return net(head, config, validation=validation, n_epochs=6, **changes)

    whole = started().fit(training_set())
    where = Checkpoint(tmp_path, "a fit", [])
    with pytest.raises(KeyboardInterrupt):
        started(checkpoint=where, callbacks=[InterruptAfter(3)]).fit(training_set())
    assert where.load()["history"][-1]["epoch"] == 3
    resumed = started(checkpoint=where).fit(training_set())
    assert weights_of(resumed).equal(weights_of(whole))
    assert len(resumed.history) == 6
    assert where.load() is None


def test_a_fit_that_was_killed_when_it_had_stopped_trains_no_further(tmp_path, monkeypatch):
    config = TrainingConfig(lr=1.0, weight_decay=0.0, n_iter_no_change=2)

    def started(where):
        return net(
            config=config, validation=training_set(30, seed=1), n_epochs=60, checkpoint=where
        )

    whole = started(None).fit(training_set())
    where = Checkpoint(tmp_path, "a fit", [])
    with monkeypatch.context() as killed:
        killed.setattr(Checkpoint, "delete", lambda self: None)
        started(where).fit(training_set())
    resumed = started(where).fit(training_set())
    assert len(resumed.history) == len(whole.history) < 60
    assert weights_of(resumed).equal(weights_of(whole))


def test_a_pickle_holds_neither_optimizer_nor_data_nor_callbacks():
    data = training_set(4000)
    config = TrainingConfig(n_iter_no_change=2)
    fitted = net(config=config, validation=data, n_epochs=1, batch_size=4000).fit(data)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 20_000  # the data have 96,000 bytes
    loaded = pickle.loads(pickled)
    X = data.views.of_epoch(0)[:9]
    np.testing.assert_array_equal(outputs(loaded.module_, X, CPU), outputs(fitted.module_, X, CPU))
    assert not hasattr(loaded, "optimizer_")
    assert fitted.optimizer_ is not None  # only the pickle goes without


def test_outputs_do_not_depend_on_neighbours_in_the_batch():
    X = training_set().views.of_epoch(0)
    fitted = net(n_epochs=1).fit(training_set())
    every = outputs(fitted.module_, X, CPU)
    np.testing.assert_array_equal(every[7:8], outputs(fitted.module_, X[7:8], CPU))


def test_mixed_precision_trains_and_predicts_in_float32():
    data = training_set()
    fitted = net(config=TrainingConfig(lr=0.1, training_precision="bfloat16")).fit(data)
    assert {p.dtype for p in fitted.module_.parameters()} == {torch.float32}
    assert accuracy(fitted, data) >= 0.9
    exact = net(config=TrainingConfig(lr=0.1)).fit(data)
    assert not weights_of(fitted).equal(weights_of(exact))
