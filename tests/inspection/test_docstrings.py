import doctest
import inspect
import re

import pytest

from sktransfer.inspection import ErrorReport

MAKERS = [ErrorReport.from_cv, ErrorReport.from_estimator, ErrorReport.from_predictions]


@pytest.mark.parametrize("maker", MAKERS)
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(maker):
    section = inspect.getdoc(maker).split("Parameters\n")[1].split("----------\n")[1]
    section = section.split("Returns\n")[0]
    written = re.findall(r"^(\w+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    expected = [
        (name, "" if p.default is p.empty else _written(p.default))
        for name, p in inspect.signature(maker).parameters.items()
    ]
    assert written == expected


def _written(value):
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_every_public_attribute_is_documented(colours, pipeline):
    made = ErrorReport.from_cv(pipeline, *colours, cv=2, map_method="pca")
    section = inspect.getdoc(ErrorReport).split("Attributes\n")[1].split("See Also\n")[0]
    documented = re.findall(r"^(\w[\w, ]*) : ", section, flags=re.MULTILINE)
    names = [name for line in documented for name in line.split(", ")]
    assert sorted(names) == sorted(name for name in vars(made) if not name.startswith("_"))


def test_examples_run_offline():
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    (example,) = (test for test in finder.find(ErrorReport, "ErrorReport") if test.examples)
    runner.run(example)
    assert runner.summarize().failed == 0
