"""Every adapter names the linear maps behind its sites, and reruns that start there equal whole passes with hooks."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.m2d import M2D, as_encoder
from otoscope.extract.models.registry import load_encoder
from otoscope.store.neurons import NeuronSet

from ...extract.models.test_spectrogram_transformers import write_ast, write_whisper
from ...extract.models.test_speech import MODELS, write
from ...support.hooks import Change, activations, assert_close, whole

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("tiny-ssl", "m2d", "ast", "whisper", *MODELS)
SECONDS = {"tiny-ssl": 2.5, "m2d": 1.0, "whisper": 30.5, "ast": 1.0}
RUNS = {"tiny-ssl": 3, "m2d": 4, "whisper": 2}
"""Chunks or windows in so many seconds."""


def encoder_of(kind: str, folder: Path) -> Encoder:
    if kind == "tiny-ssl":
        return load_encoder(kind)
    if kind == "m2d":
        torch.manual_seed(0)
        return as_encoder(M2D(input_size=(80, 32), depth=3, width=48, heads=4, hidden=40).eval())
    if kind in MODELS:
        return load_encoder(write(folder, kind)[0])
    return load_encoder({"ast": write_ast, "whisper": write_whisper}[kind](folder)[0])


def waveforms(kind: str, rate: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    clips = 1 if kind == "whisper" else 2  # 1500 frames a window take their time
    return 0.1 * torch.randn(clips, round(SECONDS.get(kind, 0.3) * rate), generator=generator)


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "whisper")) for k in KINDS])
def test_reruns_equal_whole_passes_with_hooks(kind: str, tmp_path: Path) -> None:
    encoder = encoder_of(kind, tmp_path)
    sites = [site.name for site in encoder.anatomy().sites]
    width = encoder.anatomy().sites[0].width
    maps = encoder.ffn_maps(encoder.anatomy().sites)
    n_layers = len(sites)
    batch = Batch.of(encoder, waveforms(kind, encoder.sample_rate, 1), waveforms(kind, encoder.sample_rate, 2))
    assert batch.donors is not None

    # The maps take what the sites give, run by run.
    given = activations(encoder, batch.inputs, sites)
    taken: dict[str, list[Tensor]] = {name: [] for name in maps}
    hooks = [
        encoder.module.get_submodule(name).register_forward_pre_hook(
            lambda _module, inputs, name=name: taken[name].append(inputs[0].clone())
        )
        for name in maps
    ]
    with torch.inference_mode():
        base = encoder.embed(encoder.module(batch.inputs)).numpy()
    for hook in hooks:
        hook.remove()
    for site, name in zip(sites, maps, strict=True):
        assert len(given[site]) == RUNS.get(kind, 1)
        assert all(torch.equal(a, b) for a, b in zip(given[site], taken[name], strict=True))

    ways: tuple[str | float, ...] = (0.0, 1.0, 0.5, 2.0, "mean", "patch")
    ways = (0.0, 1.0, "patch") if kind == "whisper" else ways
    rng = np.random.default_rng(0)
    means = rng.standard_normal((n_layers, width)).astype(np.float32)
    donors = activations(encoder, batch.donors.inputs, sites)
    pairs = [(layer, int(n)) for layer in range(1, n_layers) for n in rng.choice(width, 4, replace=False)]
    late = [pair for pair in pairs if pair[0] == n_layers - 1]

    def changes(new: str | float, keep: bool, chosen: Tensor) -> dict[str, Change]:
        def change_of(layer: int) -> Change:
            where = ~chosen[layer] if keep else chosen[layer]

            def change(output: Tensor, run: int) -> Tensor:
                if new == "patch":
                    return torch.where(where, donors[sites[layer]][run], output)
                if new == "mean":
                    return torch.where(where, torch.from_numpy(means[layer]), output)
                return output * torch.where(where, float(new), 1.0)

            return change

        return {site: change_of(layer) for layer, site in enumerate(sites)}

    interventions, expected = [], [base]
    for keep in (False, True):
        for new in ways:
            for chosen in (pairs, late):
                given_mode = {"mode": new, "means": means if new == "mean" else None} if isinstance(new, str) else {}
                gain = {} if isinstance(new, str) else {"gain": new}
                neurons = NeuronSet(pairs=chosen)
                interventions.append(Intervention(neurons=neurons, keep=keep, **given_mode, **gain))
                member = torch.from_numpy(neurons.mask([width] * n_layers))
                expected.append(whole(encoder, batch.inputs, changes(new, keep, member)))
                if new == 1.0:
                    np.testing.assert_array_equal(expected[-1], base)
                else:  # so that equality says something
                    assert np.abs(expected[-1] - base).max() > 1e-4 * np.abs(base).max()

    rerunner = Rerunner(encoder, interventions)
    found = rerunner(batch)
    assert (rerunner.method, rerunner.reason) == ("replay", "")
    assert_close(found, np.stack(expected))
    ones = [number for number, one in enumerate(interventions, 1) if one.gain == 1]
    for number in ones:
        np.testing.assert_array_equal(found[number], found[0])

    # The first batch has been checked; from now on only what is needed runs. Counted by attention, layer by layer.
    ran: Counter[int] = Counter()
    heads = [_attention_map(encoder.module, name) for name in maps]
    hooks = [part.register_forward_hook(lambda *_, layer=k: ran.update([layer])) for k, part in enumerate(heads)]
    np.testing.assert_array_equal(rerunner(batch), found)
    for hook in hooks:
        hook.remove()
    # Of each way there are four: a set from layer 1 on, one in the last layer, and all but these, which agree in layer
    # 0 and part at layer 1. A set's first layer costs nothing before its map. The base and the donors take a pass each.
    n = len(ways) - 1  # gain 1 is the base
    assert [ran[k] / RUNS.get(kind, 1) for k in (0, 1, n_layers - 1)] == [2, 2 + n, 2 + n + 2 * n]


def _attention_map(module: nn.Module, map_name: str) -> nn.Module:
    """A linear map inside the attention of the same block."""
    block = map_name.rpartition(".mlp" if ".mlp" in map_name else ".f")[0]
    parts = module.get_submodule(block).named_modules()
    return [part for name, part in parts if isinstance(part, nn.Linear) and "att" in name][-1]


def test_maps_that_do_not_fit_are_refused() -> None:
    model = M2D(input_size=(80, 32), depth=2, width=48, heads=4, hidden=40).eval()
    encoder = as_encoder(model)
    sites = encoder.anatomy().sites

    def with_maps(*maps: str) -> Encoder:
        return Encoder(module=model, sample_rate=16_000, sites=encoder.sites, prepare=encoder.prepare, maps=maps)

    assert with_maps().ffn_maps(sites) == ()
    assert with_maps("blocks.*.mlp.fc2").ffn_maps(sites) == ("blocks.0.mlp.fc2", "blocks.1.mlp.fc2")
    with pytest.raises(ValueError, match=r"1 modules for 2 sites; expected one for each"):
        with_maps("blocks.0.mlp.fc2").ffn_maps(sites)
    with pytest.raises(ValueError, match=r"blocks.0.mlp.fc1 \(48 inputs\) cannot take the 40 neurons"):
        with_maps("blocks.*.mlp.fc1").ffn_maps(sites)
    with pytest.raises(ValueError, match=r"blocks.0.norm2 \(LayerNorm\) cannot take"):
        with_maps("blocks.*.norm2").ffn_maps(sites)
    with pytest.raises(LookupError, match=r"matches none"):
        with_maps("layers.*.fc2").ffn_maps(sites)
