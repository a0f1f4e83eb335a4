"""Torch's global random state: one block of work at a time may set it."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.RLock()


@contextmanager
def own_random_state(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Let a ``with`` block set and use the random state; it is left as it was.

    The state is one for all threads of a process: two that draw from it at once get
    neither the numbers of their seeds nor the user's state back. So one waits for the
    other. Blocks may be nested.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with _turn, torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


def _forget_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    # a thread that had its turn is not in the child, and would never end it
    os.register_at_fork(after_in_child=_forget_turn)
