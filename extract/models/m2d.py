"""M2D, the masked-modelling vision transformer for audio: its network, and its checkpoints as Encoders.

Goal: the authors' encoder to the last key and number, without their code or its dependencies.
Conventions: log-mel spectrograms (clip, mel, frame); inside, tokens (clip, token, width), CLS first, then the patches
of a (f, t) grid row by row, f = 0 the lowest bands; features (clip, t, f * width), lowest bands first.
"""

import re
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import filled, read_checkpoint, shown
from .encoder import Encoder
from .log_mel import LogMel, mel_edges
from .m2d_files import Geometry, encoder_tensors, find_file, parse_geometry

# Mean and standard deviation of the log-mel values of AudioSet, for files that do not bring their own.
DEFAULT_NORM_STATS = (-7.1, 4.2)
MAX_MELS = 1_000


def sincos_pos_embed(width: int, grid: tuple[int, int]) -> Tensor:
    """Positions of CLS (zeros) and of a grid of (frequency, time) patches: float32 (1, 1 + patch, width).

    The first half of the vector tells the time index p, the second the frequency index p, each as sin(p w_i)
    then cos(p w_i) with w_i = 10000^(-i / (width / 4)): MAE's two-dimensional code, in MAE's order of axes.
    """
    if width % 4:
        raise ValueError(f"width is {width}; expected a multiple of 4: sine and cosine on two axes")
    if torch.empty(0).is_meta:  # shapes only: a checkpoint brings its own values
        return torch.empty(1, 1 + grid[0] * grid[1], width)
    rates = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    frequency, time = (axis.reshape(-1, 1) * rates for axis in np.indices(grid))
    patches = np.concatenate([np.sin(time), np.cos(time), np.sin(frequency), np.cos(frequency)], axis=1)
    table = np.concatenate([np.zeros((1, width)), patches])
    return torch.from_numpy(table[None].astype(np.float32))


class Attention(nn.Module):
    """Multi-head self-attention; the rows of `qkv` are queries, keys, values, each head after head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(clip, token, width) -> the same."""
        # (clip, token, 3 * width) -> 3 x (clip, head, token, width / heads)
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class Mlp(nn.Module):
    """Two linear maps; the neurons are the outputs of `act`, exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(clip, token, width) -> the same."""
        output: Tensor = self.fc2(self.act(self.fc1(tokens)))
        return output


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer, which the authors' parameter names call a block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """(clip, token, width) -> the same."""
        tokens = tokens + self.attn(self.norm1(tokens))
        output: Tensor = tokens + self.mlp(self.norm2(tokens))
        return output


class M2D(nn.Module):
    """The encoder of M2D, with the authors' parameter names; a new one starts as theirs do.

    input_size: mel bands and frames of a full input; patch: bands and frames of a patch; hidden: neurons per
    layer, by default 4 * width. The defaults are ViT-Base, 85,400,834 values. Linear maps and the patch
    embedding start as Xavier uniform, biases as 0, CLS as normal with deviation 0.02; positions and
    `norm_stats` are fixed.
    """

    pos_embed: Tensor
    norm_stats: Tensor

    def __init__(
        self,
        *,
        input_size: tuple[int, int] = (80, 608),
        patch: tuple[int, int] = (16, 16),
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        hidden: int | None = None,
        norm_stats: tuple[float, float] = DEFAULT_NORM_STATS,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} heads for a width of {width}; expected a number that divides the width")
        self.input_size, self.patch, self.width, self.heads = input_size, patch, width, heads
        self.grid = (input_size[0] // patch[0], input_size[1] // patch[1])
        self.cls_token = nn.Parameter(torch.randn(1, 1, width).mul_(0.02))
        self.register_buffer("pos_embed", sincos_pos_embed(width, self.grid))
        self.register_buffer("norm_stats", torch.tensor(norm_stats))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, patch, patch)})
        self.blocks = nn.ModuleList(TransformerLayer(width, heads, hidden or 4 * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(part.weight.flatten(1))
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def normalise(self, log_mel: Tensor) -> Tensor:
        """Log-mel values less their mean over their deviation, as `norm_stats` say; same shape."""
        return (log_mel - self.norm_stats[0]) / self.norm_stats[1]

    def embed_patches(self, chunk: Tensor) -> Tensor:
        """Normalised (clip, mel, frame), up to a full input, to patches with positions (clip, patch, width).

        Zero columns complete the last patch; short input takes the first time positions, not resampled ones.
        Raises ValueError for another number of bands or too many frames.
        """
        mels, frames = self.input_size
        if chunk.ndim != 3 or chunk.shape[1] != mels or not 0 < chunk.shape[2] <= frames:
            raise ValueError(
                f"spectrogram is {tuple(chunk.shape)}; expected (clip, mel = {mels}, frame = 1 to {frames})"
            )
        # Never wider than the model's input, which need not be a multiple of the patch.
        lacking = min(-chunk.shape[2] % self.patch[1], frames - chunk.shape[2])
        patches = self.patch_embed["proj"](F.pad(chunk, (0, lacking))[:, None])  # (clip, width, f, t)
        positions = self.pos_embed[0, 1:].reshape(*self.grid, -1)[:, : patches.shape[3]]  # (f, t, width)
        output: Tensor = (patches.permute(0, 2, 3, 1) + positions).flatten(1, 2)
        return output

    def encode(self, patches: Tensor) -> Tensor:
        """Patches (clip, patch, width), all or some, to normed tokens (clip, 1 + patch, width), CLS first."""
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        tokens = torch.cat([cls, patches], dim=1)
        for layer in self.blocks:
            tokens = layer(tokens)
        output: Tensor = self.norm(tokens)
        return output

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel (clip, mel, frame) of any length to frame features (clip, t, f * width), CLS left out.

        Longer input is cut into chunks of a full input, each starting again at time position 0, run one after
        another so that memory does not grow with the length.
        """
        features = []
        for chunk in torch.split(self.normalise(log_mel), self.input_size[1], dim=2):
            patches = self.encode(self.embed_patches(chunk))[:, 1:]
            # (clip, f * t, width) -> (clip, f, t, width) -> (clip, t, f * width)
            grid = patches.reshape(len(patches), self.grid[0], -1, self.width)
            features.append(grid.transpose(1, 2).flatten(2))
        return torch.cat(features, dim=1)


def frame_spans(n_samples: int, mel: LogMel, *, input_size: tuple[int, int], patch: tuple[int, int]) -> np.ndarray:
    """Spans (frame, 4) of t0, t1 in s and f0, f1 in Hz, chunk after chunk, each after its CLS (NaN times).

    A frame is a patch here: its times are those of the spectrogram's frames in it, at frame * hop; its frequencies are
    the outer edges of its mel bands, so that neighbours overlap as the bands do.
    """
    n_frames, edges = mel.n_frames(n_samples), mel_edges(mel.n_mels, mel.fmin, mel.fmax)
    bands = np.arange(input_size[0] // patch[0]) * patch[0]
    low, high = edges[bands], edges[bands + patch[0] + 1]
    cls = np.array([[np.nan, np.nan, edges[0], edges[-1]]])
    spans: list[np.ndarray] = []
    for start in range(0, n_frames, input_size[1]):
        columns = min(-(-(n_frames - start) // patch[1]), input_size[1] // patch[1])
        first = start + patch[1] * np.arange(columns)
        time = np.tile(np.stack([first, first + patch[1]], axis=1), (len(bands), 1)) * mel.hop / mel.sample_rate
        spans += [cls, np.column_stack([time, low.repeat(columns), high.repeat(columns)])]
    return np.concatenate(spans)


def as_encoder(model: M2D, *, sample_rate: int = 16_000, name: str = "m2d") -> Encoder:
    """The model with its front end: sites are its layers' GELU outputs, the embedding is the mean over time.

    Another batch size may pick another matrix kernel and so move results within float32 rounding.
    Raises ValueError for a sample rate that M2D has no front end for.
    """
    if sample_rate not in (16_000, 32_000):
        raise ValueError(f"M2D at {sample_rate} Hz; expected 16000 or 32000, which its front end is made for")
    mel = LogMel(sample_rate, n_mels=model.input_size[0])
    return Encoder(
        module=model,
        sample_rate=sample_rate,
        sites=("blocks.*.mlp.act",),
        prepare=mel,
        frame_spans=partial(frame_spans, mel=mel, input_size=model.input_size, patch=model.patch),
        input_length=mel.n_frames,
        transformer_layers=("blocks.*",),
        maps=("blocks.*.mlp.fc2",),
        min_samples=mel.min_samples,
        longest=model.input_size[1] * mel.hop - 1,
        name=name,
        front_end={
            **mel.settings(),
            "norm_stats": [float(value) for value in model.norm_stats],
            "input_size": list(model.input_size),
            "patch": list(model.patch),
            "heads": model.heads,
        },
    )


def load(path: str, family: str = "m2d") -> Encoder:
    """Encoder from an M2D checkpoint file or the folder that holds it, in any of the authors' layouts.

    Input, patch and sample rate are read from the file's metadata (`geometry`, safetensors only), else from
    the folder's name, else from the file's; depth, width and neurons from the shapes.
    Raises FileNotFoundError for nothing there, ValueError for a name without geometry or tensors that do not
    fit it.
    """
    file = find_file(path)
    state, metadata = read_checkpoint(file)
    names = (metadata.get("geometry", ""), file.parent.name, file.stem)
    geometry = next((found for found in map(parse_geometry, names) if found), None)
    if geometry is None:
        raise ValueError(
            f"neither folder {file.parent.name!r} nor file {file.name!r} tells the model's geometry; "
            "expected a folder named as by its authors, such as m2d_vit_base-80x608p16x16-221006-mr7"
        )
    model = _fit(encoder_tensors(state), geometry, metadata, where=f"{file.parent.name}/{file.name}")
    return as_encoder(model, sample_rate=geometry.sample_rate, name=family)


def _fit(tensors: dict[str, Tensor], geometry: Geometry, metadata: dict[str, str], where: str) -> M2D:
    """The model that the tensors describe, holding them in float32."""
    cls, neurons = tensors.get("cls_token"), tensors.get("blocks.0.mlp.fc1.weight")
    if cls is None or neurons is None:
        raise ValueError(
            f"{where} has no cls_token or no blocks.0.mlp.fc1.weight; expected an M2D encoder, found only "
            f"{', '.join(map(shown, list(tensors)[:3])) or 'other tensors'}"
        )
    if cls.ndim != 3 or neurons.ndim != 2 or geometry.mels > MAX_MELS:
        raise ValueError(
            f"{where} has a cls_token {tuple(cls.shape)} and a blocks.0.mlp.fc1.weight {tuple(neurons.shape)} for "
            f"{geometry.mels} mel bands; expected three and two dimensions, and at most {MAX_MELS} bands"
        )
    tensors.setdefault("norm_stats", torch.tensor(DEFAULT_NORM_STATS))
    width = cls.shape[-1]
    heads = metadata.get("heads", str(width // (24 if width % 64 else 64)))  # no shape tells
    if not re.fullmatch(r"[0-9]{1,6}", heads):
        raise ValueError(f"{where} has {heads[:40]!r} heads in its metadata; expected a number")
    make = partial(
        M2D,
        input_size=(geometry.mels, geometry.frames),
        patch=geometry.patch,
        depth=len({key.split(".")[1] for key in tensors if key.startswith("blocks.")}),
        width=width,
        heads=int(heads),
        hidden=len(neurons),
    )
    remedy = "the folder's name to state this checkpoint's input and patch size, and the file to be whole"
    model = filled(make, tensors, where, remedy)
    mean, deviation = model.norm_stats.tolist()
    if not (np.isfinite(mean) and 0 < deviation < np.inf):
        raise ValueError(f"{where} has norm_stats {mean:g}, {deviation:g}; expected a mean and a deviation above 0")
    return model
