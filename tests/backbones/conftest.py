"""What all tests of backbones share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Images are small here: a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
