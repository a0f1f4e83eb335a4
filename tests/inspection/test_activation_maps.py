import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sktransfer import FineTunedClassifier, PretrainedFeatureTransformer
from sktransfer._spec import InputSpec
from sktransfer.inspection._activation_maps import ActivationMap, NoMaps, activation_maps
from sktransfer.inspection._predictions import of_fitted


@pytest.fixture
def network(cache):
    # in bfloat16 activations and rows are rounded each on its own
    return PretrainedFeatureTransformer("mini", precision="float32", feature_cache=cache)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("depth", [None, -1])
def test_the_places_sum_up_to_the_difference_of_the_outputs(colours, network, n_classes, depth):
    X, y = colours[0][:30], np.arange(30) % n_classes
    linear = LogisticRegression(max_iter=1000)
    steps = StandardScaler(), PCA(8, random_state=0), linear
    model = make_pipeline(network.set_params(depth=depth), *steps).fit(X, y)
    predictions = of_fitted(model, X, y)
    for position, found in activation_maps(predictions, X, [0, 4]).items():
        predicted = predictions.predicted[position]
        rows = model[0].transform(X[position : position + 1])
        outputs = [model[1:].decision_function(row) for row in (rows, np.zeros_like(rows))]
        if n_classes == 2:
            outputs = [np.column_stack([np.zeros(1), values]) for values in outputs]
        difference = (outputs[0] - outputs[1])[0]  # without the intercept
        expected = difference[predicted] - difference[found.other]
        assert found.other != predicted
        assert found.values.shape == ((4, 4) if depth is None else (8, 8))
        assert found.values.sum() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_of_a_fine_tuned_network_and_its_probe_they_do_so_as_well(colours, cache, share):
    X, y = colours
    model = FineTunedClassifier(
        "mini", recipe="fast", image_size=32, freeze_depth=-1, max_epochs=1, feature_cache=cache,
        random_state=0, probe_weight=share, precision="float32",
    ).fit(X, y)  # fmt: skip
    predictions = of_fitted(model, X, y)
    found = activation_maps(predictions, X, [3])[3]
    part = model.net_.module_
    assert (part.probe is None) == (share == 0)
    activation = torch.from_numpy(
        model._extract_at_cut(model._validate_images(X[3:4], reset=False)).values
    )
    expected = 0.0
    networks = [(part.stages, part.head), *([] if part.probe is None else [part.probe])]
    for weight, (stages, head) in zip((1 - share, share), networks, strict=False):
        standardise, linear = head
        with torch.no_grad():
            row = stages(activation)[0] / standardise.scale
            outputs = weight * (linear[-1].weight @ row)
        expected += float(outputs[predictions.predicted[3]] - outputs[found.other])
    assert found.values.sum() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((SVC(),), "not linear"),
        ((RandomForestClassifier(n_estimators=2, random_state=0),), "no decision_function"),
    ],
)
def test_a_head_that_is_not_linear_has_no_map(colours, network, steps, words):
    X, y = colours
    model = make_pipeline(network, *steps).fit(X, y)
    predictions = of_fitted(model, X, y) if hasattr(model, "predict_proba") else None
    if predictions is None:
        linear = make_pipeline(network, LogisticRegression(max_iter=1000)).fit(X, y)
        predictions = of_fitted(linear, X, y)
        predictions.models[0] = model
    with pytest.raises(NoMaps, match=words):
        activation_maps(predictions, X, [0])


def test_rows_of_several_depths_have_no_map(colours, network):
    X, y = colours
    model = make_pipeline(network.set_params(depth=(-1, None)), LogisticRegression(max_iter=1000))
    with pytest.raises(NoMaps, match="use one depth"):
        activation_maps(of_fitted(model.fit(X, y), X, y), X, [0])


def test_the_box_is_the_part_of_the_image_that_the_network_saw():
    spec = InputSpec(size=96, resize=128, mean=(0, 0, 0), std=(1, 1, 1))
    found = ActivationMap(np.zeros((3, 3)), 0, spec)
    assert found.box(200, 200) == pytest.approx((1 / 8, 1 / 8, 3 / 4, 3 / 4))
    assert found.box(400, 200) == pytest.approx((5 / 16, 1 / 8, 3 / 8, 3 / 4))
    assert found.box(2000, 200) == (0, 0, 1, 1)  # shown whole
