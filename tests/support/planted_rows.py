"""Rows made of features that are known."""

import torch
import torch.nn.functional as F
from torch import Tensor


def planted_rows(
    n: int, width: int, features: int, active: int, *, noise: float = 0.1, mean: float = 5.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows float32 (row, width), and features of norm 1 (feature, width).

    A row is the sum of so many features, each 0.5 to 1.5 times, noise of that deviation in each value, and a mean whose
    norm is so many times that of the spread.
    """
    dice = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(features, width, generator=dice), dim=1)
    at = torch.rand(n, features, generator=dice).topk(active, dim=1).indices
    amounts = torch.zeros(n, features).scatter_(1, at, 0.5 + torch.rand(n, active, generator=dice))
    rows = amounts @ directions + noise * torch.randn(n, width, generator=dice)
    spread = (rows - rows.mean(dim=0)).square().sum(dim=1).mean().sqrt()
    return rows + F.normalize(torch.randn(width, generator=dice), dim=0) * mean * spread, directions
