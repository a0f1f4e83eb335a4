import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from sktransfer.images._custom_transform import SeededDraws, seeded_globals

DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(1000, (3,)),
    "randperm": lambda: torch.randperm(20),
    "normal": lambda: torch.normal(0.0, 1.0, (3,)),
    "uniform_": lambda: torch.empty(3).uniform_(2, 3),
    "random_": lambda: torch.empty(3).random_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((50,), 0.5)),
    "multinomial": lambda: torch.multinomial(torch.ones(50), 5),
    "rand_like": lambda: torch.rand_like(torch.ones(3)),
    "randn_like": lambda: torch.randn_like(torch.ones(3, dtype=torch.uint8), dtype=torch.float64),
    "randint_like": lambda: torch.randint_like(torch.ones(50), 10),
    "randint_like bounds": lambda: torch.randint_like(torch.ones(50), 5, high=9),
    "beta": lambda: torch.distributions.Beta(torch.ones(1), torch.ones(1)).sample(),
    "init": lambda: torch.nn.init.normal_(torch.empty(3)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_come_from_the_seed_and_not_from_the_global_generator(name):
    draw, before = DRAWS[name], torch.get_rng_state()
    with SeededDraws(7):
        first, second = draw(), draw()
    with SeededDraws(7):
        again = draw()
    with SeededDraws(8):
        other = draw()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_those_of_torch_s_generator_with_that_seed(name):
    with SeededDraws(7):
        ours = DRAWS[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = DRAWS[name]()
    assert ours.dtype == theirs.dtype
    assert torch.equal(ours, theirs)


def test_the_bounds_of_integers_hold():
    with SeededDraws(0):
        values = torch.randint_like(torch.ones(500), 5, high=9)
    assert set(values.tolist()) == {5, 6, 7, 8}


def test_a_generator_that_is_given_is_kept():
    with SeededDraws(0):
        ours = torch.rand(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(ours, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_other_threads_draw_from_the_global_generator_as_before():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        with SeededDraws(1), ThreadPoolExecutor(1) as pool:
            assert torch.equal(pool.submit(torch.rand, 3).result(), expected)


@pytest.mark.parametrize("module", [torch.nn.Dropout(), torch.nn.Dropout2d(), torch.nn.RReLU()])
def test_what_takes_no_generator_is_refused(module):
    with SeededDraws(0), pytest.raises(TypeError, match="can't be seeded"):
        module(torch.ones(3, 4, 4))


def _draw_and_fail():
    with seeded_globals(2**53):
        raise KeyError(random.random(), np.random.random())


def test_global_generators_are_put_back_also_after_an_error():
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    with pytest.raises(KeyError) as first:
        _draw_and_fail()
    assert (random.random(), np.random.random()) == expected
    with seeded_globals(2**53):
        assert (random.random(), np.random.random()) == first.value.args


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_does_not_wait_for_a_thread_that_has_seeded_the_global_generators():
    held, done = threading.Event(), threading.Event()

    def hold():
        with seeded_globals(1):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # ends a child that waits without end
        with seeded_globals(2), seeded_globals(3):  # blocks may be nested
            os._exit(0)
    done.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0
