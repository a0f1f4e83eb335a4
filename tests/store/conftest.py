import os
import pickle
import shutil
import tempfile
import traceback

import numpy as np
import pytest


@pytest.fixture
def rows():
    """Return three rows by key."""
    return {name * 32: np.full(3, name[0], dtype=np.float32) for name in (b"a", b"b", b"c")}


@pytest.fixture
def open_folder():
    """Return a folder that every user of the machine may enter, unlike pytest's."""
    folder = tempfile.mkdtemp(prefix="sktransfer-test-")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def as_another_user():
    """Return a function that calls what it is given in a process of another user."""
    if not hasattr(os, "fork") or os.getuid() != 0:
        pytest.skip("needs root, to act as another user")
    return _as_another_user


def _as_another_user(work):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)  # nobody
            os.setuid(65534)
            outcome = True, work()
        except BaseException:
            outcome = False, traceback.format_exc()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        succeeded, value = pickle.load(pipe)
    os.waitpid(child, 0)
    assert succeeded, value
    return value
