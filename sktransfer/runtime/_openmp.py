"""How long torch's threads spin at a barrier before they sleep.

Where a step of training is divided between threads, each waits for the others hundreds of times.
libgomp, the OpenMP runtime of PyTorch on Linux, lets a thread that waits spin 300,000 times before
it sleeps: several milliseconds. When other work runs on the machine, the spinning thread occupies a
core that the thread it waits for needs. `SPIN_COUNT` spins are some 75 microseconds, a little
longer than sleeping and waking take. (benchmarks/bench_busy.py --spins 1000 10000 compares others.)

libgomp reads the number when it is loaded, which is when torch is first imported. Neither the
number of threads nor any result depends on it.
"""

import os
import sys

SPIN_COUNT = 3000
_VARIABLE = "GOMP_SPINCOUNT"
_VARIABLES_OF_USERS = (_VARIABLE, "OMP_WAIT_POLICY")


def import_torch() -> None:
    """Import torch with few spins, unless the environment says how its threads wait.

    Nothing is done if torch has been imported before. The environment is restored, so that
    other libraries, and processes that this one starts, are not affected.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _VARIABLES_OF_USERS):
        return
    os.environ[_VARIABLE] = str(SPIN_COUNT)
    try:
        import torch  # noqa: F401
    finally:
        del os.environ[_VARIABLE]


import_torch()
