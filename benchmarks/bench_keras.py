"""Networks of keras.applications give Keras' own rows, and run as fast as torchvision's.

    python benchmarks/bench_keras.py

No published weights: each network is drawn by Keras, its norms as well, and saved by Keras as
``.weights.h5``. For each, at the size of its published weights: the largest difference to Keras'
``include_top=False, pooling="avg"``, the largest value, and the time of a forward pass of four
images on one thread: here, in Keras on its torch backend, and of torchvision's network of that
name. The least of five passes each, the three in turn.

Claims: no row differs by more than 1e-4; each network takes at most 1.5 times as long as
torchvision's, and less time than Keras'. Two minutes on one core.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torchvision

from _report import write_csv
from sktransfer.backbones._registry import load_backbone
from sktransfer.backbones.sources import _keras

N_IMAGES, N_PASSES = 4, 5
LARGEST_DIFFERENCE, LARGEST_RATIO = 1e-4, 1.5
# of Keras, the module with its preprocess_input, torchvision's
NETWORKS = (
    ("MobileNetV2", "mobilenet_v2", "mobilenet_v2"),
    ("ResNet50", "resnet", "resnet50"),
    ("VGG16", "vgg16", "vgg16"),
    ("InceptionV3", "inception_v3", "inception_v3"),
    ("EfficientNetB0", "efficientnet", "efficientnet_b0"),
    ("DenseNet121", "densenet", "densenet121"),
    ("ConvNeXtTiny", "convnext", "convnext_tiny"),
    ("MobileNetV3Large", "mobilenet_v3", "mobilenet_v3_large"),
    ("MobileNet", "mobilenet", None),
    ("ResNet50V2", "resnet_v2", None),
    ("EfficientNetV2B0", "efficientnet_v2", None),
    ("Xception", "xception", None),
)


def drawn(name):
    """Return a network of Keras with random weights, and norms that are not the identity."""
    make = getattr(_keras.module().applications, name)
    model = make(weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if any(word in weight.path for word in ("moving_mean", "beta", "bias")):
            weight.assign(rng.normal(0, 0.05, weight.shape))
        elif any(word in weight.path for word in ("gamma", "variance")):
            weight.assign(rng.uniform(0.6, 1, weight.shape))
    return model


def fastest(*functions):
    """Return the least milliseconds an image of each function, called in turn."""
    best = [float("inf")] * len(functions)
    for _ in range(N_PASSES):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], 1000 * (time.perf_counter() - start) / N_IMAGES)
    return best


def measured(name, module, twin, folder):
    model = drawn(name)
    path = Path(folder) / "x.weights.h5"
    model.save_weights(path)
    backbone = load_backbone(f"keras:{name}", None, path)
    network = backbone.frozen(len(backbone.stages), backbone.pooling("auto"))
    size = backbone.spec.input.size
    generator = torch.Generator().manual_seed(0)
    shape = (N_IMAGES, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    preprocess = getattr(_keras.module().applications, module).preprocess_input
    x = preprocess(images.permute(0, 2, 3, 1).numpy().astype(np.float32))
    x = torch.from_numpy(np.ascontiguousarray(x))
    functions = [lambda: network(images), lambda: model(x, training=False)]
    if twin is not None:
        weights = {"weights": None, "init_weights": False} if "incep" in twin else {"weights": None}
        other = getattr(torchvision.models, twin)(**weights).eval()
        other = other.to(memory_format=torch.channels_last)
        channels_first = x.permute(0, 3, 1, 2)
        functions.append(lambda: other(channels_first))
    with torch.inference_mode():
        rows, expected = (function().numpy(force=True) for function in functions[:2])
        ours, keras, *torchvisions = fastest(*functions)
    return {
        "network": name,
        "pixels": size,
        "largest_value": float(np.abs(expected).max()),
        "largest_difference": float(np.abs(rows - expected).max()),
        "ms_per_image": round(ours, 1),
        "ms_per_image_keras": round(keras, 1),
        "ms_per_image_torchvision": round(torchvisions[0], 1) if torchvisions else "",
    }


def main():
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            rows.append(measured(*network, folder))
            print(*rows[-1].values(), flush=True)
    write_csv("keras", rows)
    for row in rows:
        assert row["largest_difference"] <= LARGEST_DIFFERENCE, row
        assert row["largest_value"] >= 100 * LARGEST_DIFFERENCE, row
        assert row["ms_per_image"] < row["ms_per_image_keras"], row
        twin = row["ms_per_image_torchvision"]
        assert twin == "" or row["ms_per_image"] <= LARGEST_RATIO * twin, row


if __name__ == "__main__":
    main()
