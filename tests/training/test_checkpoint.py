import os
from pickle import PicklingError

import numpy as np
import pytest
import torch

from sktransfer.training._checkpoint import Checkpoint

X = np.arange(6.0)


def test_a_state_comes_back_until_it_is_deleted(tmp_path):
    checkpoint = Checkpoint(tmp_path / "new", "fit", [X])
    assert checkpoint.load() is None
    checkpoint.save({"weights": torch.ones(2), "epoch": 3, "loss": [0.5, None]})
    assert Checkpoint(tmp_path / "new", "fit", [X]).load()["epoch"] == 3
    checkpoint.delete()
    assert checkpoint.load() is None
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize(
    ("what", "array"), [("other", X), ("fit", X + 1), ("fit", X.reshape(2, 3)), ("fit", X > 0)]
)
def test_another_fit_has_another_file(tmp_path, what, array):
    assert Checkpoint(tmp_path, what, [array]).path != Checkpoint(tmp_path, "fit", [X]).path


def test_a_write_that_fails_leaves_the_state_before(tmp_path):
    checkpoint = Checkpoint(tmp_path, "fit", [X])
    checkpoint.save({"epoch": 1})
    # what pickle raises, and its words, differ between versions of Python
    with pytest.raises((AttributeError, PicklingError), match="lambda"):
        checkpoint.save({"epoch": lambda: None})
    assert checkpoint.load() == {"epoch": 1}
    assert len(os.listdir(tmp_path)) == 1


def test_a_file_that_would_run_code_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path, "fit", [X])

    class RunsCode:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"epoch": RunsCode()}, checkpoint.path)
    with pytest.raises(ValueError, match=r"is damaged.*delete it"):
        checkpoint.load()
    assert not (tmp_path / "ran").exists()


def test_a_truncated_file_is_named(tmp_path):
    checkpoint = Checkpoint(tmp_path, "fit", [X])
    checkpoint.save({"weights": torch.ones(100)})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:50])
    with pytest.raises(ValueError, match=checkpoint.path.name):
        checkpoint.load()
