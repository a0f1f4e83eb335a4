"""The backbone that ships with the package, and the architecture of its network."""

from importlib.resources import files
from typing import Any

import torch
from torch import nn

from ..._spec import InputSpec, WeightsOffer
from .._architecture import Architecture, NetworkStructure
from .._weights import load_strictly, read_metadata, read_tensors

# channels and number of residual blocks of stage1 .. stage4
_STAGES = ((32, 1), (64, 2), (128, 2), (256, 1))


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside an identity or 1 x 1 shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU()
        if stride == 1 and n_in == n_out:
            self.shortcut: nn.Module = nn.Identity()
        else:
            # averaging before the 1 x 1 convolution lets the shortcut see every
            # pixel: "ResNet-D", arXiv 1812.01187
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(n_in, n_out, 1, bias=False),
                nn.BatchNorm2d(n_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + self.shortcut(x))


class MiniNet(nn.Module):
    """Residual network with stages ``stem``, ``stage1`` .. ``stage4`` and the head ``fc``.

    Takes normalised float images ``(n, 3, height, width)`` and returns logits
    ``(n, num_classes)``. The last stage has 256 channels.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__()
        n_in = _STAGES[0][0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, n_in, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(n_in),
            nn.ReLU(),
        )
        for number, (n_out, n_blocks) in enumerate(_STAGES, start=1):
            blocks = []
            for position in range(n_blocks):
                stride = 2 if number > 1 and position == 0 else 1
                blocks.append(_ResidualBlock(n_in, n_out, stride))
                n_in = n_out
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(n_in, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"stage{number}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


_FILE = files(__package__).joinpath("mini.safetensors")
# ImageNet's mean and deviation, as benchmarks/train_mini.py has them
_INPUT = InputSpec(
    size=64,
    resize=64,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_STRUCTURE_OF_MINI = NetworkStructure(
    stages={name: (name,) for name in ("stem", "stage1", "stage2", "stage3", "stage4")},
    head=("fc.",),
)


def names() -> tuple[str, ...]:
    return ("mini",)


def architecture(name: str) -> Architecture | None:
    """Return the embedded architecture of that name, None where there is none."""
    if name not in names():
        return None
    return Architecture(
        name=name,
        source="embedded",
        build=MiniNet,
        structure=lambda model: _STRUCTURE_OF_MINI,
        input=lambda: _offer().input if _FILE.is_file() else _INPUT,
        offers=lambda: {"CIFAR10": _offer()} if _FILE.is_file() else {},
        pretrained=_pretrained,
    )


def _offer() -> WeightsOffer:
    path = str(_FILE)
    metadata = read_metadata(path)
    assert metadata is not None  # benchmarks/train_mini.py wrote it
    return WeightsOffer(
        name="CIFAR10",
        location=path,
        input=InputSpec.from_mapping(metadata["input"]),
        licence=metadata["licence"],
        n_bytes=0,  # to download
    )


def _pretrained(
    architecture: Architecture, offer: WeightsOffer, params: dict[str, Any]
) -> nn.Module:
    model = architecture.empty(params)
    load_strictly(
        model,
        read_tensors(offer.location),
        _STRUCTURE_OF_MINI.head,
        f"backbone={architecture.name!r}",
    )
    return model
