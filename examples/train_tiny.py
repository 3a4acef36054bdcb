"""Train the two bundled encoders: the same small vision transformer, the same sounds, two objectives.

    python examples/train_tiny.py OUT_DIR [--objective ssl|sl|both] [--steps N] [--clips N] [--seed S]

`tiny-ssl` learns by masked prediction as in M2D (Niizumi et al., 2023): an online encoder sees the visible
patches, and a small decoder predicts what a target encoder, a running average of the online one, makes of the
masked patches alone. `tiny-sl` learns to name how a sound was made: articulation, modulation, room and
background noise. Neither is told octave, timbre family or event, the labels that are analysed later. First
weights, pool, batches, number of steps and optimiser are the same; only the objective differs.

Writes OUT_DIR/tiny-{ssl,sl}.safetensors and a JSON record beside each. Weights repeat exactly for the same
seed, number of threads, torch build and kind of CPU, not beyond.
"""

import argparse
import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from otoscope.extract.audio.corpora.sounds import ARTICULATIONS, MODULATIONS, NOISES, ROOMS
from otoscope.extract.audio.corpora.synth import clips
from otoscope.extract.models.log_mel import LogMel
from otoscope.extract.models.m2d import M2D, TransformerLayer, sincos_pos_embed

METADATA = {"geometry": "m2d_vit_tiny-80x112p16x16", "heads": "4"}
FACTORS = {"articulation": ARTICULATIONS, "modulation": MODULATIONS, "room": ROOMS, "noise": NOISES}
"""What tiny-sl is taught, with the values of each."""
POOL_SEEDS, HELD_OUT_SEEDS = 1_000_000, 2_000_000
"""Added to the seed, so that no corpus synthesised from a small seed shares a clip with the pool."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What both trainings share; the last three concern masked prediction only."""

    seed: int = 1
    clips: int = 6000
    held_out: int = 1000
    steps: int = 1000
    batch: int = 128
    threads: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    first_bias: float = -0.5
    mask_ratio: float = 0.7
    decoder_depth: int = 2
    momentum: float = 0.99


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Log-mel spectrograms (clip, mel, frame), codes of factors (clip, factor), -1 for none, and origin."""

    log_mel: Tensor
    codes: Tensor
    counts: dict[str, int]
    sha256: str


def make_pool(n_clips: int, seed: int) -> Pool:
    """About `n_clips` sounds: two fifths additive notes, two fifths FM notes, one fifth events."""
    notes, events = max(round(n_clips * 0.4 / 9), 1), max(round(n_clips * 0.2 / 10), 1)
    counts = {"additive": notes, "fm": notes, "events": events}
    front_end, digest = LogMel(16_000), hashlib.sha256()
    log_mel, codes = [], []
    for samples, factors in clips(seed, counts):
        digest.update(samples.tobytes())
        log_mel.append(front_end(torch.from_numpy(samples)[None]))
        codes.append([FACTORS[name].index(str(factors[name])) if factors[name] else -1 for name in FACTORS])
    return Pool(log_mel=torch.cat(log_mel), codes=torch.tensor(codes), counts=counts, sha256=digest.hexdigest())


def new_encoder(pool: Pool, settings: Settings) -> M2D:
    """An untrained encoder, normalised by the pool's mean and deviation.

    The neurons' biases start below zero, so that a neuron is quiet unless something drives it. From zero
    most neurons stay on for most sounds in so short a training, and a neuron that is always on selects
    nothing.
    """
    stats = (float(pool.log_mel.mean()), float(pool.log_mel.std()))
    encoder = M2D(input_size=(80, 112), patch=(16, 16), depth=4, width=96, heads=4, norm_stats=stats)
    for name, parameter in encoder.named_parameters():
        if name.endswith("mlp.fc1.bias"):
            nn.init.constant_(parameter, settings.first_bias)
    return encoder


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens (clip, token, width) at the positions (clip, position) of each clip."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


class MaskedPrediction(nn.Module):
    """M2D's objective around an encoder: log-mel spectrograms, and codes that it ignores, to the loss."""

    def __init__(self, encoder: M2D, settings: Settings) -> None:
        super().__init__()
        width, heads = encoder.width, encoder.heads
        self.momentum = settings.momentum
        self.online, self.target = encoder, copy.deepcopy(encoder).requires_grad_(False)
        self.n_visible = round(math.prod(encoder.grid) * (1 - settings.mask_ratio))
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.decoder_embed = nn.Linear(width, width)
        self.decoder_layers = nn.ModuleList(
            TransformerLayer(width, heads, 4 * width) for _ in range(settings.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, width)
        self.positions = sincos_pos_embed(width, encoder.grid)
        self.target_std = 0.0

    def forward(self, log_mel: Tensor, _codes: Tensor) -> Tensor:
        """Mean over masked patches of the squared distance of prediction and target as unit vectors (0 to 4).

        Targets are standardised, each dimension over all masked patches of the batch, so that what all
        patches share earns nothing. `target_std` keeps the deviation before that, mean over dimensions: 0
        if they collapsed.
        """
        n_clips, n_visible = len(log_mel), self.n_visible
        order = torch.rand(n_clips, self.positions.shape[1] - 1).argsort(dim=1)
        visible, masked = order[:, :n_visible], order[:, n_visible:]
        positions = self.positions[:, 1:].expand(n_clips, -1, -1)
        chunk = self.online.normalise(log_mel)
        seen = self.decoder_embed(self.online.encode(gather(self.online.embed_patches(chunk), visible)))
        seen = seen + F.pad(gather(positions, visible), (0, 0, 1, 0))  # CLS has no position
        hidden = torch.cat([seen, self.mask_token + gather(positions, masked)], dim=1)
        for layer in self.decoder_layers:
            hidden = layer(hidden)
        predicted = self.decoder_pred(self.decoder_norm(hidden[:, 1 + n_visible :]))
        with torch.no_grad():
            wanted = self.target.encode(gather(self.target.embed_patches(chunk), masked))[:, 1:]
            deviation = wanted.std((0, 1))
            self.target_std = float(deviation.mean())
            wanted = (wanted - wanted.mean((0, 1))) / (deviation + 1e-6)
        distance = F.normalize(predicted, dim=-1) - F.normalize(wanted, dim=-1)
        return distance.square().sum(-1).mean()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Let the target follow the online encoder, ever more slowly as `progress` goes from 0 to 1."""
        momentum = self.momentum + (1 - self.momentum) * progress
        for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
            slow.lerp_(fast, 1 - momentum)

    def report(self, pool: Pool) -> dict[str, float]:
        """Loss and target deviation on sounds held out."""
        torch.manual_seed(0)  # the masks
        loss = self(pool.log_mel, pool.codes)
        return {"held_out_loss": round(float(loss), 4), "held_out_target_std": round(self.target_std, 4)}


class Naming(nn.Module):
    """Supervised objective around an encoder: a linear classifier per factor on the mean over patches."""

    def __init__(self, encoder: M2D, _settings: Settings) -> None:
        super().__init__()
        self.online = encoder
        self.heads = nn.ModuleDict({name: nn.Linear(encoder.width, len(FACTORS[name])) for name in FACTORS})

    def logits(self, log_mel: Tensor) -> list[Tensor]:
        """(clip, mel, frame) -> (clip, value) for each factor."""
        chunk = self.online.normalise(log_mel)
        pooled = self.online.encode(self.online.embed_patches(chunk))[:, 1:].mean(dim=1)
        return [head(pooled) for head in self.heads.values()]

    def forward(self, log_mel: Tensor, codes: Tensor) -> Tensor:
        """Sum over factors of the mean cross-entropy in nats over the clips that have the factor."""
        parts = zip(self.logits(log_mel), codes.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(logit, code, ignore_index=-1) for logit, code in parts]).sum()

    def after_step(self, progress: float) -> None:
        """Nothing to keep up."""

    def report(self, pool: Pool) -> dict[str, float]:
        """Loss and share of clips named rightly, per factor, on sounds held out."""
        named = zip(FACTORS, self.logits(pool.log_mel), pool.codes.unbind(1), strict=True)
        result = {"held_out_loss": round(float(self(pool.log_mel, pool.codes)), 4)}
        for name, logit, code in named:
            right = (logit.argmax(1) == code)[code >= 0].double().mean()
            result[f"held_out_accuracy_{name}"] = round(float(right), 4)
        return result


OBJECTIVES: dict[str, Callable[[M2D, Settings], MaskedPrediction | Naming]] = {
    "ssl": MaskedPrediction,
    "sl": Naming,
}


def batches(n_clips: int, settings: Settings) -> Iterator[Tensor]:
    """Clip numbers (batch) of each step, pass after shuffled pass over the pool; both objectives alike."""
    order, generator = torch.empty(0, dtype=torch.long), torch.Generator().manual_seed(settings.seed)
    for _ in range(settings.steps):
        while len(order) < settings.batch:
            order = torch.cat([order, torch.randperm(n_clips, generator=generator)])
        yield order[: settings.batch]
        order = order[settings.batch :]


def rate(step: int, settings: Settings) -> float:
    """Learning rate relative to its peak: a linear rise, then half a cosine down to zero."""
    rise = settings.warmup * settings.steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (settings.steps - rise)))


def train(objective: str, pool: Pool, held_out: Pool, settings: Settings) -> tuple[M2D, dict[str, object]]:
    """A trained encoder, and how it went: seconds, curves of 40 means, scores on the sounds held out."""
    torch.manual_seed(settings.seed)
    model = OBJECTIVES[objective](new_encoder(pool, settings), settings)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay)
    curves: dict[str, list[float]] = {"loss": [], "target_std": []}
    start = time.monotonic()
    for step, chosen in enumerate(batches(len(pool.codes), settings)):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate(step, settings)
        loss = model(pool.log_mel[chosen], pool.codes[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        model.after_step((step + 1) / settings.steps)
        curves["loss"].append(loss.item())
        curves["target_std"].append(getattr(model, "target_std", math.nan))
        if (step + 1) % 100 == 0 or step + 1 == settings.steps:
            print(f"{objective}: step {step + 1} of {settings.steps}, loss {loss.item():.4f}", flush=True)
    took = round(time.monotonic() - start, 1)
    with torch.no_grad():
        scores = model.eval().report(held_out)
    named = {f"{name}_curve": means(values) for name, values in curves.items() if not math.isnan(values[0])}
    return model.online, {"seconds": took, **scores, **named}


def means(values: list[float], n: int = 40) -> list[float]:
    """A curve of at most `n` points, each the mean of its share of the values."""
    parts = torch.tensor(values).tensor_split(min(n, len(values)))
    return [round(float(part.mean()), 4) for part in parts]


def main() -> None:
    """Read the command line, make the sounds, train, write weights and records."""
    defaults = Settings()
    parser = argparse.ArgumentParser(description="Train the two bundled encoders.")
    parser.add_argument("out", type=Path, help="folder for weights and records")
    parser.add_argument("--objective", choices=["ssl", "sl", "both"], default="both")
    for name in ("steps", "clips", "held_out", "seed", "threads"):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=int, default=getattr(defaults, name), help="default %(default)s")
    arguments = vars(parser.parse_args())
    out, objective = arguments.pop("out"), arguments.pop("objective")
    settings = Settings(**arguments)

    torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    pool = make_pool(settings.clips, POOL_SEEDS + settings.seed)
    held_out = make_pool(settings.held_out, HELD_OUT_SEEDS + settings.seed)
    print(f"made {len(pool.codes)} sounds to learn from and {len(held_out.codes)} to judge by", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for each in OBJECTIVES if objective == "both" else [objective]:
        encoder, outcome = train(each, pool, held_out, settings)
        file = out / f"tiny-{each}.safetensors"
        file.write_bytes(save(encoder.state_dict(), METADATA))
        record = {
            "encoder": file.stem,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "torch": torch.__version__,
            "settings": asdict(settings),
            "pool": {"clips": pool.counts, "seed": POOL_SEEDS + settings.seed, "sha256": pool.sha256},
            "norm_stats": [round(float(value), 6) for value in encoder.norm_stats],
            "optimiser": "AdamW (0.9, 0.95), gradients clipped to norm 1, linear rise then half a cosine",
            "outcome": outcome,
        }
        file.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"wrote {file}")


if __name__ == "__main__":
    main()
