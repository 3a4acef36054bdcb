"""16 bits: what is computed in them, what is not, and that a task keeps to one precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import otoscope
from otoscope.ablate.intervention import Intervention
from otoscope.ablate.replay.rerun import Batch, Rerunner
from otoscope.extract.audio.decoding import read_clip
from otoscope.extract.audio.manifest import read_manifest
from otoscope.extract.capture import capture
from otoscope.extract.forward import arithmetic
from otoscope.extract.models.encoder import Encoder, weights_digest
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import origin_of
from otoscope.extract.summarise import FrameSum
from otoscope.store.neurons import NeuronSet
from otoscope.store.provenance import tolerance
from otoscope.store.status import block_versions, describe
from otoscope.store.verify import verify

from ..support import planted_encoder as planted
from ..support.amounts import quick_sample
from ..support.interrupted_executor import After, interrupt
from ..support.stored_files import tree_of
from ..support.wav_corpora import write_corpus
from .models import test_spectrogram_transformers as spectrograms
from .models import test_speech as speech

PRECISE = {"bfloat16": torch.bfloat16, "float16": torch.float16}
RATE = 16_000


def run(folder: Path, encoder: Encoder | str = "tiny-ssl", **options: Any) -> Any:
    given = {"task": "t", "threads": 1, "block": 4, "batch": 4, "device": "cpu", "mean_dtype": "float32", **options}
    return capture(encoder, folder / "corpus.csv", str(folder / "s"), **given)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same clips in each precision, by the bundled encoder."""
    folders = {}
    for precision in ("float32", *PRECISE):
        folders[precision] = tmp_path_factory.mktemp(precision)
        write_corpus(folders[precision], [RATE] * 6, rate=RATE)
        run(folders[precision], precision=precision, keep=("mean", "positive_frames", "embedding", "hidden"))
    return folders


def plainly(encoder: Encoder, waveforms: Tensor, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Activations of the sites, hidden states and embedding, by torch alone: front end outside, network in autocast."""
    active: list[Tensor] = []
    hidden: list[Tensor] = []
    model = encoder.module
    hooks = [part.mlp.act.register_forward_hook(lambda _m, _i, out: active.append(out)) for part in model.blocks]
    hooks += [model.blocks[0].register_forward_pre_hook(lambda _m, given: hidden.append(given[0]))]
    hooks += [part.register_forward_hook(lambda _m, _i, out: hidden.append(out)) for part in model.blocks]
    with torch.inference_mode():
        inputs = encoder.prepare(waveforms)
        with torch.autocast("cpu", dtype=dtype):
            output = model(inputs)
    for hook in hooks:
        hook.remove()
    assert inputs.dtype == torch.float32
    assert {values.dtype for values in active} == {dtype}
    frames = np.stack([values[:, 1:].double().numpy() for values in active])  # (layer, clip, frame, neuron)
    return {
        "mean": frames.mean(axis=2), "positive_frames": (frames > 0).sum(axis=2), "active": frames.mean(axis=2) > 0,
        "hidden": np.stack([state[:, 1:].double().numpy().mean(axis=1) for state in hidden]),
        "embedding": output.double().numpy().mean(axis=1),
    }  # fmt: skip


def waveforms(folder: Path) -> np.ndarray:
    clips = read_manifest(folder / "corpus.csv").clips
    return np.stack([read_clip(clips.root, clips.clip(i), RATE).samples for i in range(len(clips))])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("precision", PRECISE)
def test_what_is_stored_is_what_plain_torch_gives_summed_in_float32(stored: dict[str, Path], precision: str) -> None:
    folder, encoder = stored[precision], load_encoder("tiny-ssl").to("cpu")
    ds = otoscope.open(str(folder / "s"))["t"].ds.compute()
    sounds = torch.from_numpy(waveforms(folder))
    parts = [plainly(encoder, sounds[at], PRECISE[precision]) for at in (slice(4), slice(4, 6))]  # as batches were
    dims = {"mean": ("layer", "clip", "neuron"), "hidden": ("state", "clip", "hidden_dim")}
    for name in ("mean", "active", "positive_frames", "hidden", "embedding"):
        expected = np.concatenate([part[name] for part in parts], axis=int(name != "embedding"))
        found = ds[name].transpose(*dims.get(name, dims["mean"] if name != "embedding" else ds[name].dims)).values
        if expected.dtype.kind == "f":
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        else:
            np.testing.assert_array_equal(found, expected)


def test_16_bits_move_results_by_their_rounding_and_the_neurons_stay_the_same(stored: dict[str, Path]) -> None:
    tasks = {precision: otoscope.open(str(folder / "s"))["t"].ds.compute() for precision, folder in stored.items()}
    exact = tasks["float32"]["mean"].values
    off = {p: np.abs(tasks[p]["mean"].values - exact).max() / np.abs(exact).max() for p in PRECISE}
    assert 1e-4 < off["bfloat16"] < 0.02
    assert 1e-5 < off["float16"] < off["bfloat16"] / 3
    assert len({task.attrs["weights"] for task in tasks.values()}) == 1
    for precision, folder in stored.items():
        assert describe(str(folder / "s"))["tasks"]["t"]["identity"]["precision"] == precision


def test_a_run_is_resumed_and_grown_in_the_store_s_precision_to_the_same_bytes(
    tmp_path: Path, stored: dict[str, Path]
) -> None:
    keep = ("mean", "positive_frames", "embedding", "hidden")
    write_corpus(tmp_path, [RATE] * 6, rate=RATE)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, precision="bfloat16", keep=keep, executor=After(1, interrupt))
    with pytest.raises(ValueError, match=r'another identity \(precision: "float16", not "bfloat16"'):
        run(tmp_path, precision="float16")
    assert run(tmp_path).n_ok == 6  # as the store says
    assert tree_of(tmp_path / "s") == tree_of(stored["bfloat16"] / "s")
    with pytest.raises(ValueError, match=r'another identity \(precision: "float32", not "bfloat16"'):  # not loaded
        run(tmp_path, precision="float32")
    write_corpus(tmp_path, [RATE] * 8, rate=RATE)
    assert run(tmp_path).n_ok == 8
    (version,) = block_versions(str(tmp_path / "s"), "t")
    assert "parity within 0.039 on " in version
    assert list(verify(str(tmp_path / "s"))) == []


def small(family: str, folder: Path) -> str:
    """Spec of a small encoder of a family."""
    if family == "module":
        return f"module:{planted.__file__}:planted"
    if family in ("ast", "whisper"):
        return {"ast": spectrograms.write_ast, "whisper": spectrograms.write_whisper}[family](folder)[0]
    if family not in speech.MODELS:
        return family
    # In convolutions of 8 channels a group torch 2.13 makes gross errors in bfloat16 on some processors.
    return speech.write(folder, family, **{} if family == "data2vec" else {"num_conv_pos_embedding_groups": 2})[0]


FAMILIES = ("tiny-ssl", "tiny-sl", "module", "hubert", "wavlm", "wav2vec2", "data2vec", "mert", "ast")


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("family", [*quick_sample(FAMILIES, 3), pytest.param("whisper", marks=pytest.mark.slow)])
def test_every_family_runs_in_each_precision_and_is_replayed_in_it(tmp_path: Path, family: str) -> None:
    exact = load_encoder(small(family, tmp_path)).to("cpu")
    sounds = 0.1 * torch.randn(2, exact.sample_rate // 2, generator=torch.Generator().manual_seed(0))
    batch = Batch(inputs=exact.prepare(sounds), n_samples=sounds.shape[1])
    some = NeuronSet(pairs=((1, 0), (1, 3), (1, 7)))
    asked = [Intervention(neurons=some, gain=gain) for gain in (0.0, 1.0)]
    asked += [Intervention(neurons=some, keep=True, gain=0.3)]
    for precision in PRECISE:
        encoder = exact.at(precision)
        identity = origin_of(encoder, "audio").identity
        assert (identity.precision, identity.weights) == (precision, weights_digest(exact.module))
        rerunner = Rerunner(encoder, asked)
        with arithmetic(1):
            found = rerunner(batch)
            whole = Rerunner(encoder, asked, replay=False)(batch)
            assert (rerunner.method, rerunner.reason) == ("replay", "")
            np.testing.assert_array_equal(found, rerunner(batch))  # to the last bit
        np.testing.assert_array_equal(found[[0, 0]], np.stack([whole[0], found[2]]))
        assert np.abs(found[3] - whole[0]).max() > 1e-7
        assert np.abs(found - whole).max() <= tolerance(precision, 1e-5) * np.abs(whole).max()


class Deceptive(nn.Module):
    """Does in 16 bits what it is told to."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.first, self.site = what, nn.Linear(10, 4), nn.Identity()
        if what == "own":
            self.half()

    def forward(self, frames: Tensor) -> Tensor:
        lower = torch.is_autocast_enabled("cpu")
        if self.what == "own":
            return self.site(self.first(frames.half()))
        values = self.first(frames)
        if lower and self.what == "fails":
            raise RuntimeError('"rare_op" not implemented for this type')
        if lower and self.what == "wrong":
            values = values + 1
        if lower and self.what == "overflow":
            values = 1e9 * values.half() * 0
        return self.site(values.float() if self.what == "float32 sites" else values)


@pytest.mark.parametrize(
    ("what", "precision", "message"),
    [
        ("fails", "bfloat16", r"failed on a second of sound in bfloat16 \(.*rare_op.*or leave --precision out"),
        (
            "wrong",
            "bfloat16",
            r"cannot be run in bfloat16 on this cpu: compared with float32, .* differs by .*--precision",
        ),
        ("overflow", "float16", r"cannot be run in float16 on this cpu: compared with float32, .* differs by nan"),
        ("float32 sites", "bfloat16", r"gives float32 at all of its sites when it is run in bfloat16; expected sites"),
        (
            "own",
            "bfloat16",
            r"computes in float16, by its weights or torch's settings; expected bfloat16, as was asked",
        ),
        ("own", "float32", r"computes in float16, by its weights or torch's settings; expected float32, as was asked"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path, what: str, precision: str, message: str) -> None:
    write_corpus(tmp_path, [50] * 3)
    model = Deceptive(what).eval()
    encoder = Encoder(module=model, sample_rate=1000, sites=["site"], prepare=lambda w: w.unfold(1, 10, 10))
    with pytest.raises(ValueError, match=message) as caught:
        run(tmp_path, encoder, precision=precision)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()
    if what != "own":
        return
    assert run(tmp_path, encoder).n_ok == run(tmp_path, encoder, precision="float16").n_ok == 3
    with pytest.raises(ValueError, match="computes in float16"):
        run(tmp_path, encoder, precision="bfloat16")


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    write_corpus(tmp_path, [50] * 3)
    with pytest.raises(ValueError, match="no precision 'half'; expected one of float32, bfloat16, float16"):
        run(tmp_path, precision="half")


def test_the_front_end_and_sums_stay_in_float32_inside_an_encoder_in_16_bits(tmp_path: Path) -> None:
    windows = load_encoder(spectrograms.write_whisper(tmp_path)[0]).to("cpu").module
    sound = 0.1 * torch.randn(1, 480_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = windows.log_mel(sound)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(windows.log_mel(sound), exact)
            total = FrameSum("site", torch.ones(1, 3), 1)
            total.add(torch.tensor([[[1.0], [2.0**-9], [2.0**-9]]]))
    assert float(total.total) == 1 + 2.0**-8
