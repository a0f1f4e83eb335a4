"""A search that was interrupted and is started again computes nothing twice that is stored."""

import numpy as np
import pytest
import torch

from sktransfer import FineTunedClassifier, count_forward_passes
from sktransfer.model_selection import TransferSearchCV


class HeadThatIsInterrupted:
    """Make the head of a network; of one number of fits raise KeyboardInterrupt."""

    fits = 0
    interrupted_at = 0

    def __call__(self, n_in, n_out):
        type(self).fits += 1
        if type(self).fits == self.interrupted_at:
            raise KeyboardInterrupt
        return torch.nn.Linear(n_in, n_out)


@pytest.fixture
def search(cache):
    classifier = FineTunedClassifier(
        "mini",
        head=HeadThatIsInterrupted(),
        image_size=32,
        max_epochs=1,
        precision="float32",
        feature_cache=str(cache),
        random_state=0,
    )
    return TransferSearchCV(
        classifier,
        depths=(None, -1),
        recipes=("fast",),
        freeze_depths=(-1,),
        cv=2,
        random_state=0,
    )


def test_rows_and_activations_of_an_interrupted_search_are_not_computed_again(search, shapes):
    X, y = shapes
    HeadThatIsInterrupted.fits, HeadThatIsInterrupted.interrupted_at = 0, 2
    with count_forward_passes() as counter, pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    assert counter.computed == 2 * len(X)  # for all rows, and to the cut of fine-tuning
    assert not hasattr(search, "cv_results_")

    with count_forward_passes() as counter:
        search.fit(X, y)
    assert counter.computed == 0
    assert HeadThatIsInterrupted.fits >= 4
    assert any(result.kind == "fine-tuning" for result in search.strategies_)


def test_rows_are_stored_before_the_first_fit(search, shapes, monkeypatch):
    X, y = shapes

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("sktransfer.model_selection._trials.Trials.evaluate", interrupt)
    search.set_params(pixels=False, recipes=())
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    monkeypatch.undo()
    with count_forward_passes() as counter:
        search.fit(X, y)
    assert counter.computed == 0
    assert np.isfinite(search.best_score_)
