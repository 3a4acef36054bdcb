"""One sparse autoencoder under training: its first weights, its gradients and its steps.

Goal: the arithmetic of a step in a third of the time that dense products take, on one thread.
Conventions: rows x are prepared, (row, width); weights are encoder W and decoder D, (latent, width), and bias b
(latent). With pre = x W^T + b, codes z are max(pre, 0) where they are among the k largest of their row, or, for
BatchTopK, among the k rows largest of the batch, and 0 elsewhere. The reconstruction is z D. The loss is the mean of
(z D - x)^2 over rows and values, with AuxK's beside it.

Gradients are written out, because codes are mostly 0: W's and D's are sums over the rows in which a latent fired, and
`embedding_bag` sums only these. Such sums are not deterministic on a GPU, which has dense products instead.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .recipe import Recipe

SPARSE_BELOW = 0.15
"""Share of codes kept, under which sums over them are quicker than dense products (768 wide, 2,048 latents)."""
AUXK_WEIGHT = 1 / 32
WEIGHTS = ("encoder", "bias", "decoder")
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each."""
TRAINED = {"none": WEIGHTS, "untrained": (), "random-decoder": ("encoder", "bias")}
"""By the recipe's control: which weights the steps change."""


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Of the loss, in the shapes of the weights."""

    encoder: Tensor
    bias: Tensor
    decoder: Tensor


def first_weights(recipe: Recipe, width: int) -> dict[str, Tensor]:
    """Weights before the first step, drawn on the CPU by the recipe's seed alone."""
    dice = torch.Generator().manual_seed(recipe.seed)
    n = recipe.latents
    if recipe.init == "independent":  # what torch.nn.Linear draws, in the order encoder, bias, decoder
        encoder, bias, decoder = torch.empty(n, width), torch.empty(n), torch.empty(width, n)
        encoder.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width), generator=dice)
        bias.uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width), generator=dice)
        decoder.uniform_(-1 / math.sqrt(n), 1 / math.sqrt(n), generator=dice)
        decoder = decoder.T.contiguous()
        if recipe.unit_norm:
            _normalise(decoder)
        return {"encoder": encoder, "bias": bias, "decoder": decoder}
    decoder = torch.randn(n, width, generator=dice)
    _normalise(decoder)
    return {"encoder": decoder.clone(), "bias": torch.zeros(n), "decoder": decoder}


def _normalise(decoder: Tensor) -> None:
    decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True).clamp_(min=1e-12))


class Model:
    """Weights, Adam's moments, and which latents fired."""

    def __init__(self, recipe: Recipe, width: int, device: torch.device) -> None:
        self.recipe, self.width = recipe, width
        first = first_weights(recipe, width)
        self.encoder, self.bias, self.decoder = (first[name].to(device) for name in WEIGHTS)
        self.trained = TRAINED[recipe.control]
        optimised = [getattr(self, name) for name in self.trained]
        self.optimiser = torch.optim.Adam(optimised, lr=recipe.lr, fused=True) if optimised else None
        self.adam: dict[Tensor, dict[str, Tensor]] = self.optimiser.state if self.optimiser else {}
        self.fired = torch.zeros(recipe.latents, dtype=torch.bool, device=device)
        """(latent) in this epoch so far."""
        self.dead = torch.zeros_like(self.fired)
        """(latent) that did not fire in the whole epoch before."""
        self.dead_at = self.fired.nonzero().view(-1)
        """Numbers of these."""
        self.kept = torch.zeros(2, dtype=torch.float64, device=device)
        """Sum over batches of the smallest code kept, and how many they are, in this epoch so far."""

    @property
    def threshold(self) -> float | None:
        """What single rows' codes must exceed: mean over the epoch's batches of the smallest kept; None for TopK."""
        total, n = self.kept.tolist()
        return total / max(n, 1) if self.recipe.batch_topk else None

    def begin_epoch(self) -> None:
        """Forget what fired, and what was kept."""
        self.fired.zero_()
        self.kept.zero_()

    def end_epoch(self) -> None:
        """Take for dead what did not fire."""
        torch.logical_not(self.fired, out=self.dead)
        self.dead_at = self.dead.nonzero().view(-1)

    def step(self, x: Tensor, lr: float) -> None:
        """One step of Adam on a batch of prepared rows (row, width)."""
        gradients = self.gradients(x)
        if self.optimiser is None:
            return
        for name in self.trained:
            getattr(self, name).grad = getattr(gradients, name)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        if self.recipe.unit_norm and "decoder" in self.trained:
            _normalise(self.decoder)

    def gradients(self, x: Tensor) -> Gradients:
        """Gradients of the loss of prepared rows (row, width); takes note of what fired and what was kept."""
        pre = F.linear(x, self.encoder, self.bias)
        value, latent, row = self._kept(pre)
        if self.recipe.batch_topk:
            # Without asking the device whether there was one above 0.
            smallest = torch.where(value > 0, value, torch.inf).min().double()
            there = smallest.isfinite()
            self.kept += torch.stack([torch.where(there, smallest, 0.0), there.double()])
        by_sums = x.device.type == "cpu" and self.recipe.k < SPARSE_BELOW * self.recipe.latents
        residual, found = (self._by_sums if by_sums else self._by_products)(x, value, latent, row)
        if self.recipe.auxk:
            self._add_auxk(found, x, pre, residual)
        return found

    def _kept(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, latent and row, (code), of the codes kept, by row."""
        rows, n, k = len(pre), self.recipe.latents, self.recipe.k
        if self.recipe.batch_topk:
            at = pre.view(-1).topk(k * rows, sorted=False).indices.sort().values
            return pre.view(-1)[at].clamp_(min=0), at % n, at // n
        # Codes are those of max(pre, 0): where that is 0, it makes no difference which are kept.
        value, latent = pre.topk(k, sorted=False)
        row = torch.arange(rows, device=pre.device).repeat_interleave(k)
        return value.clamp_(min=0).view(-1), latent.view(-1), row

    def _by_sums(self, x: Tensor, value: Tensor, latent: Tensor, row: Tensor) -> tuple[Tensor, Gradients]:
        """(x - z D), and gradients without AuxK's, by sums over the codes kept."""
        n = self.recipe.latents
        with torch.enable_grad():  # torch has the products of residuals with single latents as this gradient alone
            value.requires_grad_()
            y = F.embedding_bag(latent, self.decoder, _starts(row, len(x)), per_sample_weights=value, mode="sum")
        slope = (y.detach() - x).mul_(2 / x.numel())
        (to_value,) = torch.autograd.grad(y, value, slope)
        value = value.detach()
        to_value.mul_(value > 0)
        self.fired[latent[value > 0]] = True
        order = latent.argsort(stable=True)
        row, starts = row[order], _starts(latent, n)
        found = Gradients(
            encoder=F.embedding_bag(row, x, starts, per_sample_weights=to_value[order], mode="sum"),
            bias=torch.bincount(latent, to_value, minlength=n).to(x.dtype),
            decoder=F.embedding_bag(row, slope, starts, per_sample_weights=value[order], mode="sum"),
        )
        return x - y.detach(), found

    def _by_products(self, x: Tensor, value: Tensor, latent: Tensor, row: Tensor) -> tuple[Tensor, Gradients]:
        """The same, by dense products."""
        z = x.new_zeros(len(x), self.recipe.latents)
        z[row, latent] = value
        y = z @ self.decoder
        slope = (y - x).mul_(2 / x.numel())
        positive = z > 0
        self.fired |= positive.any(dim=0)
        to_pre = (slope @ self.decoder.T).mul_(positive)
        return x - y, Gradients(encoder=to_pre.T @ x, bias=to_pre.sum(dim=0), decoder=z.T @ slope)

    def _add_auxk(self, found: Gradients, x: Tensor, pre: Tensor, residual: Tensor) -> None:
        """Add the gradients of AuxK's loss.

        e = x - z D, which stays as it is; e^ = the decoder's sum over the largest min(width / 2, dead) pre-activations
        of dead latents, negative ones too; the loss is |e - e^|^2 / |e - its mean over rows|^2, times 1/32, times
        min(dead / (width / 2), 1).
        """
        dead = self.dead_at
        if not len(dead):
            return
        spread = (residual - residual.mean(dim=0)).square_().sum().clamp_(min=torch.finfo(x.dtype).tiny)
        wanted = max(self.width // 2, 1)
        z, decoder = pre[:, dead], self.decoder[dead]
        among: Tensor | float = 1.0
        if wanted < len(dead):
            among = torch.zeros_like(z).scatter_(1, z.topk(wanted, sorted=False).indices, 1.0)
            z = z * among
        slope = (z @ decoder - residual) * (2 * AUXK_WEIGHT * min(len(dead) / wanted, 1) / spread)
        to_pre = (slope @ decoder.T) * among
        found.encoder.index_add_(0, dead, to_pre.T @ x)
        found.bias.index_add_(0, dead, to_pre.sum(dim=0))
        found.decoder.index_add_(0, dead, z.T @ slope)

    def reconstruct(self, x: Tensor) -> Tensor:
        """z D (row, width) of prepared rows, codes of each row by itself."""
        pre = F.linear(x, self.encoder, self.bias)
        if (threshold := self.threshold) is not None:
            return (pre.clamp(min=0) * (pre > threshold)) @ self.decoder
        k = self.recipe.k
        value, latent = pre.topk(k, sorted=False)
        value.clamp_(min=0)
        if x.device.type == "cpu" and k < SPARSE_BELOW * self.recipe.latents:
            return F.embedding_bag(latent, self.decoder, per_sample_weights=value, mode="sum")
        return torch.zeros_like(pre).scatter_(1, latent, value) @ self.decoder

    def state(self) -> dict[str, Tensor]:
        """All that a later step depends on, by name, between two epochs."""
        held = {name: getattr(self, name) for name in (*WEIGHTS, "dead", "kept")}
        for name in self.trained:
            for key, value in self.adam[getattr(self, name)].items():
                held[f"{name}.{key}"] = value
        return held

    def restore(self, held: dict[str, Tensor]) -> None:
        """Take a state back. Raises ValueError where it is not one of such a model."""
        ours = self.state()
        for name in (*WEIGHTS, "dead", "kept"):
            if name not in held or held[name].shape != ours[name].shape or held[name].dtype != ours[name].dtype:
                raise ValueError(f"it lacks {name} {tuple(ours[name].shape)}")
            ours[name].copy_(held[name])
        for name in self.trained:
            weights = getattr(self, name)
            moments = {key: held[f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in held}
            if len(moments) < len(MOMENTS):
                raise ValueError(f"it lacks Adam's moments of {name}")
            # Copies: a file's tensors may lie anywhere in memory, and the last bits of sums depend on where.
            self.adam[weights] = {key: value.to(weights.device, copy=True) for key, value in moments.items()}
        self.dead_at = self.dead.nonzero().view(-1)


def _starts(sorted_or_not: Tensor, n: int) -> Tensor:
    """(n) where each number from 0 begins, once they are sorted."""
    counts = torch.bincount(sorted_or_not, minlength=n)
    return counts.cumsum(0) - counts
