"""Documentation that can't drift: defaults, parameters and examples."""

import doctest
import inspect
import re

import pytest

import sktransfer
from sktransfer.backbones.sources import _registered

ESTIMATORS = [sktransfer.PretrainedFeatureTransformer, sktransfer.FineTunedClassifier]


@pytest.mark.parametrize("estimator", [*ESTIMATORS, sktransfer.ZeroShotClassifier])
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(estimator):
    section = inspect.getdoc(estimator).split("Parameters\n")[1].split("Attributes\n")[0]
    documented = re.findall(r"^(\w+) : .*default=(.+)$", section, flags=re.MULTILINE)
    signature = inspect.signature(estimator).parameters
    expected = [
        (name, f'"{p.default}"' if isinstance(p.default, str) else p.default)
        for name, p in signature.items()
    ]
    assert [name for name, _ in documented] == [name for name, _ in expected]
    for (name, written), (_, default) in zip(documented, expected, strict=True):
        if isinstance(default, float):
            written = float(written)
        assert str(written) == str(default), name


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_fitted_attribute_is_documented(estimator, shapes):
    X, y = shapes
    fitted = estimator("mini", image_size=32).fit(X, y)
    documented = inspect.getdoc(estimator).split("Attributes\n")[1].split("See Also\n")[0]
    learned = [name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")]
    assert learned
    for name in learned:
        assert f"\n{name} : " in documented


PUBLIC = {name: getattr(sktransfer, name) for name in sktransfer.__all__}
PUBLIC |= {n: getattr(sktransfer.inspection, n) for n in sktransfer.inspection.__all__}
PUBLIC |= {name: getattr(sktransfer.hygiene, name) for name in sktransfer.hygiene.__all__}
PUBLIC |= {
    n: getattr(sktransfer.domain_adaptation, n) for n in sktransfer.domain_adaptation.__all__
}
PUBLIC |= {n: getattr(sktransfer.model_selection, n) for n in sktransfer.model_selection.__all__}
# modules, and records that the examples of their makers show
WITHOUT_EXAMPLE = {
    "inspection",
    "jobs",
    "model_selection",
    "count_passes",  # deprecated
    "domain_adaptation",
    "hygiene",
    "monitoring",
    "InputSpec",
    "BackboneRanking",
    "DuplicateSet",
    "Duplicates",
    "FoldLeakage",
    "ImageCheck",
    "ImageChecks",
    "LabelIssue",
    "LabelIssues",
    "LeakageReport",
    "RankedBackbone",
    "RecalibratedNorm",
    "Recalibration",
    "StrategyResult",
    "StrategyTable",
}


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - WITHOUT_EXAMPLE))
def test_examples_run_offline(name, monkeypatch):
    # what an example registers is gone after it
    monkeypatch.setattr(_registered, "registered", dict(_registered.registered))
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    examples = [test for test in finder.find(PUBLIC[name], name) if test.examples]
    assert examples, f"{name} has no example"
    for example in examples:
        runner.run(example)
    assert runner.summarize().failed == 0
