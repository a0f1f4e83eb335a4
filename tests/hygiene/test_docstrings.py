import doctest
import inspect
import re

import pytest

from sktransfer import hygiene

FACES = [hygiene.check_images, hygiene.near_duplicates, hygiene.DuplicateGroups,
         hygiene.label_issues, hygiene.leakage_report]  # fmt: skip


@pytest.mark.parametrize("face", FACES)
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(face):
    # without its indentation, which Python takes away itself from 3.13 on
    section = inspect.getdoc(face).split("Parameters\n")[1].split("----------\n")[1]
    written = re.findall(r"^([\w, ]+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    signature = inspect.signature(face).parameters
    expected = [
        (
            name,
            ""
            if p.default is p.empty
            else f'"{p.default}"'
            if isinstance(p.default, str)
            else str(p.default),
        )
        for name, p in signature.items()
    ]
    assert written[: len(expected)] == expected


@pytest.mark.parametrize("face", FACES)
def test_examples_run_offline(face):
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    (example,) = (test for test in finder.find(face, face.__name__) if test.examples)
    runner.run(example)
    assert runner.summarize().failed == 0
