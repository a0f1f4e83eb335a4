"""Mix the images of a batch with each other, and their targets with them."""

import torch

MIXES = ("mixup", "cutmix")


def mix_batch(
    activations: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, mix: str, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a batch in which each image is mixed with another one of it.

    "mixup" (arXiv 1710.09412) is a weighted mean of two images; at a cut behind the first
    stage it is a mean of activations, which is manifold mixup (arXiv 1806.05236).
    "cutmix" (arXiv 1905.04899) is a rectangle of the one in the other. The share is drawn
    from Beta(alpha, alpha), from torch's global generator.
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    partner = torch.randperm(len(activations))
    others = activations[partner]
    if mix == "mixup":
        if not activations.is_floating_point():  # 8-bit images, where nothing is frozen
            activations, others = activations.float(), others.float()
        mixed = torch.lerp(others, activations, share)
    else:
        mixed = activations.clone()
        (top, bottom), (left, right), share = _rectangle(activations.shape[-2:], share)
        mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    # an image of weight w is w images: its share of the mixture grows with it
    own, other = share * weights, (1 - share) * weights[partner]
    total = (own + other).clamp_min(torch.finfo(weights.dtype).tiny)
    part = (own / total).unsqueeze(1)
    return mixed, part * targets + (1 - part) * targets[partner], own + other


def _rectangle(shape: torch.Size, share: float) -> tuple[tuple[int, int], tuple[int, int], float]:
    """Draw a rectangle over ``1 - share`` of the area; return it with the share that is left."""
    height, width = shape
    side = (1 - share) ** 0.5
    spans = []
    for n in (height, width):
        centre = torch.randint(n, ()).item()
        half = n * side / 2
        spans.append((max(0, round(centre - half)), min(n, round(centre + half))))
    (top, bottom), (left, right) = spans
    left_over = 1 - (bottom - top) * (right - left) / (height * width)
    return (top, bottom), (left, right), left_over
