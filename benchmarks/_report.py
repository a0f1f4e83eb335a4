"""What every benchmark does with its figures: a process for each variant, a CSV, a machine."""

import csv
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def in_own_process(script, variant, *arguments):
    """Run one variant of a benchmark script in a fresh process; return what it reports."""
    command = [sys.executable, script, "--variant", variant, *map(str, arguments)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def machine():
    """Return the versions and the machine that figures belong to."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("sktransfer", "torch", "scikit-learn", "skorch")},
        "cores": len(os.sched_getaffinity(0)),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def write_csv(name, rows):
    """Write dicts of figures, with versions and machine in each row; print the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    facts = machine()
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *facts])
        writer.writeheader()
        writer.writerows({**row, **facts} for row in rows)
    print(f"wrote {path}")
