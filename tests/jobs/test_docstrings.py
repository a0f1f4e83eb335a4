"""Documentation that can't drift: defaults, parameters and examples."""

import doctest
import inspect
import re

import pytest

from sktransfer import jobs

FACES = [jobs.ExtractionJob, jobs.load_rows, jobs.import_rows, jobs.export_rows]


@pytest.mark.parametrize("face", FACES[:3])
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(face):
    section = face.__doc__.split("Parameters\n")[1].split("----------\n")[1]
    written = re.findall(r"^    ([\w, ]+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    expected = [
        (name, "" if p.default is p.empty else _spelled(name, p.default))
        for name, p in inspect.signature(face).parameters.items()
    ]
    assert written[: len(expected)] == expected


def _spelled(name, default):
    if name == "rows_per_shard":
        return f"{default:_}"
    return f'"{default}"' if isinstance(default, str) else str(default)


@pytest.mark.parametrize("face", FACES)
def test_examples_run_offline(face):
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    (example,) = (test for test in finder.find(face, face.__name__) if test.examples)
    runner.run(example)
    assert runner.summarize().failed == 0
