"""Parameters and attributes that are documented are those that there are."""

import inspect
import re

import numpy as np
import pytest

from sktransfer.domain_adaptation import PseudoLabelClassifier, recalibrate_backbone


@pytest.mark.parametrize("face", [PseudoLabelClassifier, recalibrate_backbone])
def test_every_parameter_is_documented_with_its_default_in_the_order_of_the_signature(face):
    section = face.__doc__.split("Parameters\n")[1].split("----------\n")[1]
    written = re.findall(r"^    ([\w, ]+) : .*?(?:default=(.+))?$", section, flags=re.MULTILINE)
    expected = []
    for name, parameter in inspect.signature(face).parameters.items():
        default = "" if parameter.default is parameter.empty else parameter.default
        is_text = isinstance(default, str) and default
        expected.append((name, f'"{default}"' if is_text else str(default)))
    assert written[: len(expected)] == expected


def test_every_fitted_attribute_is_documented():
    X = np.random.default_rng(0).normal(size=(40, 3))
    y = np.tile([0, 1], 20)
    fitted = PseudoLabelClassifier().fit(X, y, sample_domain=np.repeat([1, -1], 20))
    documented = PseudoLabelClassifier.__doc__.split("Attributes\n")[1].split("See Also\n")[0]
    learned = [name for name in vars(fitted) if name.endswith("_") and not name.startswith("_")]
    assert len(learned) > 8
    for name in learned:
        assert f"    {name} : " in documented
