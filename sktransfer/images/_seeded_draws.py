"""Random draws of somebody else's code, seeded, and the global random states untouched.

torchvision's transforms draw from torch's global generator. Seeding and restoring it
would be of no use: views are drawn in threads while the main thread trains, and
dropout there draws from the same generator. So each draw inside the block gets a
generator of its own instead, in this thread only.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

# The functions and tensor methods of torch that take `generator`.
_TAKES_GENERATOR = frozenset(
    ["rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"]
    + ["binomial", "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "geometric_"]
    + ["cauchy_", "log_normal_", "_sample_dirichlet", "_standard_gamma"]
)
# Those that take none in every supported version, by those that do.
_LIKE: dict[str, Callable] = {
    "rand_like": torch.Tensor.uniform_,
    "randn_like": torch.Tensor.normal_,
    "randint_like": torch.Tensor.random_,
}
_TAKES_NONE = frozenset(
    ["dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "rrelu", "rrelu_"]
    + ["alpha_dropout", "alpha_dropout_", "feature_dropout", "feature_dropout_"]
    + ["feature_alpha_dropout", "feature_alpha_dropout_", "gumbel_softmax"]
    + ["fractional_max_pool2d", "fractional_max_pool3d"]
)

# One thread at a time has Python's and NumPy's global generators to itself.
_global_states = threading.RLock()


class SeededDraws(TorchFunctionMode):
    """Within the block, what this thread draws with torch comes from `seed` alone."""

    def __init__(self, seed: int):
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _TAKES_NONE:
            raise TypeError(f"{name} draws random numbers that can't be seeded; use torch.rand")
        if kwargs.get("generator") is None:
            if name in _LIKE:
                kwargs.pop("generator", None)
                # what stands before and after the first argument: the bounds of integers
                bounds = [kwargs.pop(bound) for bound in ("low", "high") if bound in kwargs]
                first = args[:1] or (kwargs.pop("input"),)
                empty = torch.empty_like(*first, **kwargs)
                return _LIKE[name](empty, *args[1:], *bounds, generator=self._generator)
            if name in _TAKES_GENERATOR:
                kwargs["generator"] = self._generator
        return func(*args, **kwargs)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seed Python's and NumPy's global generators inside the block, and put them back.

    These can't be had for one thread: one block runs at a time, and what another
    thread draws from them meanwhile disturbs it.
    """
    with _global_states:
        python, numpy = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
