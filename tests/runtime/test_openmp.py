import os
import re
import subprocess
import sys

import pytest
import threadpoolctl
import torch

from sktransfer.runtime._openmp import SPIN_COUNT

LIBGOMPS_OWN = 300_000


@pytest.fixture(scope="module", autouse=True)
def libgomp():
    pools = threadpoolctl.threadpool_info()
    if not any("libgomp" in pool["filepath"] and "torch" in pool["filepath"] for pool in pools):
        pytest.skip(f"torch {torch.__version__} does not bring libgomp here")


def imported(code, **environment):
    """Run `code` in a fresh process; return the spins of every libgomp, and what it prints.

    libgomp prints its settings when it is loaded. scikit-learn loads one of its own after torch's.
    """
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "GOMP_", "MKL_"))
    }
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    counts = [int(n) for n in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", finished.stderr)]
    return counts, finished.stdout.split()


def test_importing_the_package_makes_torchs_threads_spin_less_and_leaves_the_environment():
    code = "import os; before = dict(os.environ); import sktransfer; print(os.environ == before)"
    counts, printed = imported(code)
    assert counts[0] == SPIN_COUNT < LIBGOMPS_OWN
    assert set(counts[1:]) <= {LIBGOMPS_OWN}
    assert printed == ["True"]


@pytest.mark.parametrize(
    ("variable", "value", "n_spins"),
    [("GOMP_SPINCOUNT", "77", 77), ("OMP_WAIT_POLICY", "PASSIVE", 0)],
)
def test_how_threads_wait_is_the_users_choice_where_the_environment_says_it(
    variable, value, n_spins
):
    counts, _ = imported("import sktransfer", **{variable: value})
    assert set(counts) == {n_spins}


def test_torch_that_was_imported_before_is_left_as_it_is():
    counts, _ = imported("import torch, sktransfer")
    assert set(counts) == {LIBGOMPS_OWN}


def test_the_number_of_threads_stays_torchs():
    ask = "import torch; print(torch.get_num_threads())"
    assert imported("import sktransfer; " + ask)[1] == imported(ask)[1]
    assert imported("import sktransfer; " + ask, OMP_NUM_THREADS="1")[1] == ["1"]
