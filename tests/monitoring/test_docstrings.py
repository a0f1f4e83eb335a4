import doctest
import inspect
import re

import pytest

from sktransfer import monitoring

FACES = [monitoring.NoveltyDetector, monitoring.DriftMonitor, monitoring.select_to_label]


@pytest.mark.parametrize("face", FACES)
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(face):
    section = inspect.getdoc(face).split("Parameters\n")[1].split("----------\n")[1]
    written = re.findall(r"^(\w+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    expected = [
        (name, "" if p.default is p.empty else str(p.default).join('""'))
        if isinstance(p.default, str)
        else (name, "" if p.default is p.empty else str(p.default))
        for name, p in inspect.signature(face).parameters.items()
    ]
    assert written[: len(expected)] == expected


@pytest.mark.parametrize("face", FACES)
def test_examples_run_offline(face):
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    (example,) = (test for test in finder.find(face, face.__name__) if test.examples)
    runner.run(example)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("face", FACES[:2])
def test_every_fitted_attribute_is_documented(face):
    X = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0]]
    fitted = face("knn" if face is FACES[0] else "passthrough").fit(X)
    documented = inspect.getdoc(face).split("Attributes\n")[1].split("See Also\n")[0]
    learned = [name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")]
    assert learned
    for name in learned:
        assert f"\n{name} : " in documented
