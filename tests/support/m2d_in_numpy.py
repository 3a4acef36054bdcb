"""M2D stated a second time, for tests: its tensors by the authors' names, its arithmetic in plain numpy.

Nothing here imports the package. Patch by patch, head by head, in float64.
"""

import numpy as np
import torch
from scipy.special import erf


def encoder_state(
    *, depth: int, width: int, hidden: int, n_patches: int, patch: tuple[int, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """An encoder-only state dict with random values of about the size that training leaves."""
    random = torch.Generator().manual_seed(seed)

    def values(*shape: int, scale: float = 0.02, around: float = 0.0) -> torch.Tensor:
        return around + scale * torch.randn(shape, generator=random)

    state = {
        "cls_token": values(1, 1, width, scale=0.5),
        "pos_embed": values(1, 1 + n_patches, width, scale=0.5),
        "norm_stats": torch.tensor([-6.5, 3.9]),
        "patch_embed.proj.weight": values(width, 1, *patch, scale=0.1),
        "patch_embed.proj.bias": values(width),
    }
    for i in range(depth):
        block = {
            "norm1.weight": values(width, around=1.0, scale=0.1),
            "norm1.bias": values(width),
            "attn.qkv.weight": values(3 * width, width, scale=0.7 * width**-0.5),
            "attn.qkv.bias": values(3 * width),
            "attn.proj.weight": values(width, width, scale=0.5 * width**-0.5),
            "attn.proj.bias": values(width),
            "norm2.weight": values(width, around=1.0, scale=0.1),
            "norm2.bias": values(width),
            "mlp.fc1.weight": values(hidden, width, scale=width**-0.5),
            "mlp.fc1.bias": values(hidden),
            "mlp.fc2.weight": values(width, hidden, scale=0.5 * hidden**-0.5),
            "mlp.fc2.bias": values(width),
        }
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    return state | {"norm.weight": values(width, around=1.0, scale=0.1), "norm.bias": values(width)}


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def encode_chunk(
    s: dict[str, np.ndarray], x: np.ndarray, heads: int, grid: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """One padded, normalised chunk (mel, frame) -> features (t, f * width) and each layer's GELU outputs."""
    kernel = s["patch_embed.proj.weight"][:, 0]
    width, height, columns = kernel.shape
    n_f, n_t = grid[0], x.shape[1] // columns
    positions = s["pos_embed"][0]
    tokens = [s["cls_token"][0, 0] + positions[0]]
    for f in range(n_f):
        for t in range(n_t):
            tile = x[f * height : (f + 1) * height, t * columns : (t + 1) * columns]
            embedded = np.einsum("dij,ij->d", kernel, tile) + s["patch_embed.proj.bias"]
            tokens.append(embedded + positions[1 + f * grid[1] + t])
    z = np.stack(tokens)
    activations = []
    for i in range(sum(name.endswith("mlp.fc1.bias") for name in s)):
        p = {name.removeprefix(f"blocks.{i}."): v for name, v in s.items() if name.startswith(f"blocks.{i}.")}
        normed = layer_norm(z, p["norm1.weight"], p["norm1.bias"])
        qkv = normed @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]
        q, k, v = (part.reshape(len(z), heads, width // heads) for part in np.split(qkv, 3, axis=1))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(width // heads)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(len(z), width)
        z = z + mixed @ p["attn.proj.weight"].T + p["attn.proj.bias"]
        normed = layer_norm(z, p["norm2.weight"], p["norm2.bias"])
        activations.append(gelu(normed @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]))
        z = z + activations[-1] @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
    z = layer_norm(z, s["norm.weight"], s["norm.bias"])
    features = [np.concatenate([z[1 + f * n_t + t] for f in range(n_f)]) for t in range(n_t)]
    return np.stack(features), activations


def frame_features(
    state: dict[str, torch.Tensor], log_mel: np.ndarray, *, heads: int, frames: int, grid: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Log-mel (mel, frame) of any length -> features (t, f * width), and per layer its activations."""
    s = {name: tensor.double().numpy() for name, tensor in state.items()}
    mean, std = s["norm_stats"]
    columns = s["patch_embed.proj.weight"].shape[3]
    n_chunks = -(-log_mel.shape[1] // frames)
    pad = (columns - log_mel.shape[1] % frames % columns) % columns
    x = np.pad((log_mel - mean) / std, ((0, 0), (0, pad)))
    parts = [encode_chunk(s, x[:, frames * i : frames * (i + 1)], heads, grid) for i in range(n_chunks)]
    return np.concatenate([p[0] for p in parts]), [np.concatenate(a) for a in zip(*[p[1] for p in parts], strict=True)]
