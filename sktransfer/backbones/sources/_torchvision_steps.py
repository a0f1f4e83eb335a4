"""Steps of torchvision's networks that are code in their forward, not submodules."""

from typing import Any

import torch
from torch import nn


class TransformInput(nn.Module):
    """Inception's and GoogLeNet's change from ImageNet's mean and deviation to their own."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.enabled = model.transform_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.enabled:
            return x
        # the weights were trained on values in [-1, 1]; numbers as torchvision has them
        scale = x.new_tensor([0.229, 0.224, 0.225]).view(3, 1, 1) / 0.5
        shift = (x.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1) - 0.5) / 0.5
        return x * scale + shift


class VitTokens(nn.Module):
    """Patches to tokens, with the class token first and positions added."""

    def __init__(self, model: Any):  # a VisionTransformer
        super().__init__()
        self.conv_proj = model.conv_proj
        self.class_token = model.class_token
        self.pos_embedding = model.encoder.pos_embedding
        self.dropout = model.encoder.dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv_proj(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(tokens.shape[0], -1, -1)
        return self.dropout(torch.cat([first, tokens], dim=1) + self.pos_embedding)


class ChannelsLast(nn.Module):
    """(n, C, H, W) to (n, H, W, C), in which Swin computes."""

    def __init__(self, model: nn.Module):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(n, H, W, C) back to (n, C, H, W), as every activation between stages is."""

    def __init__(self, model: nn.Module):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)


class FinalReLU(nn.Module):
    """The activation of DenseNet's last feature maps."""

    def __init__(self, model: nn.Module):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class FirstToken(nn.Module):
    """The class token, which ViT's hidden layer reads."""

    def __init__(self, model: nn.Module):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0]


class Flatten(nn.Module):
    """Pooled maps to the row that a hidden layer reads."""

    def __init__(self, model: nn.Module):
        super().__init__()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)
