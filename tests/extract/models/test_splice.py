"""Dictionaries inside encoders: identity, what is stored of their latents, layers of every kind, what does not fit."""

from collections import OrderedDict, namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from otoscope.extract.capture import capture
from otoscope.extract.models import registry
from otoscope.extract.models.dictionary import Dictionary, write_dictionary
from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.latents import check_lengths, latents_origin, site_names, spliced
from otoscope.extract.models.registry import load_encoder, source_of
from otoscope.extract.plan import origin_of
from otoscope.sae.encoding import encode
from otoscope.store.changes.tasks import stored_origin
from otoscope.store.provenance import digest_of
from otoscope.store.reader import open_store

from ...support.awkward_models import CHUNK, WIDTH, spans, toy_encoder
from ...support.commands import refused
from ...support.counting import count_calls
from ...support.dictionaries import by_hooks, codes_of, drawn
from ...support.wav_corpora import write_corpus

pytestmark = pytest.mark.usefixtures("one_thread")
RATE, STATES = 16_000, (1, 3)
LENGTHS = [9000, 16_000, 4000, 12_345, 16_000, 7000]


def written(folder: Path, rows: str, base: str = "", states: tuple[int, ...] = STATES) -> tuple[list[Dictionary], str]:
    """Dictionaries of tiny-ssl in folders, and the spec of their latents."""
    dictionaries = [drawn(96, state, latents=40, k=6, rows=rows, base=base) for state in states]
    for dictionary in dictionaries:
        write_dictionary(dictionary, folder / f"sae{dictionary.state}")
    return dictionaries, f"latents:{','.join(str(folder / f'sae{state}') for state in states)}@tiny-ssl"


@pytest.mark.parametrize("rows", ["frame", "clip"])
def test_a_task_of_latents_holds_what_stored_states_and_plain_numpy_give(rows: str, tmp_path: Path) -> None:
    manifest, sounds = write_corpus(tmp_path, LENGTHS, rate=RATE)
    url, given = str(tmp_path / "s"), {"threads": 1, "device": "cpu", "unit_sec": 1.0, "mean_dtype": "float32"}
    capture("tiny-ssl", manifest, url, task="base", keep=("mean", "embedding", "hidden"), **given)
    base = stored_origin(url, "base")
    dictionaries, spec = written(tmp_path, rows, digest_of(base.identity.to_json()))
    capture(spec, manifest, url, task="latents", keep=("mean", "embedding"), **given)

    # As of the task that holds the states, to every field of the identity.
    found = stored_origin(url, "latents")
    assert found.identity == latents_origin(base, dictionaries).identity
    assert found.differences(latents_origin(base, dictionaries)) == []
    assert [name for name, _ in found.identity.sites] == site_names(dictionaries)
    assert found.source == source_of(spec) != base.source

    tree = open_store(url)
    of, stored = (tree[name].to_dataset().compute() for name in ("latents", "base"))
    np.testing.assert_array_equal(of["embedding"], stored["embedding"])  # to the last bit
    assert (of["frame_count"] == (1 if rows == "clip" else stored["frame_count"])).all()
    encoder = load_encoder("tiny-ssl").to("cpu")
    for i, dictionary in enumerate(dictionaries):
        if rows == "clip":
            codes = codes_of(dictionary, stored["hidden"].isel(state=dictionary.state).values)
        else:
            codes = np.empty((len(LENGTHS), dictionary.n_latents))
            for clip, sound in enumerate(sounds):
                wave = torch.zeros(1, RATE)
                wave[0, : len(sound)] = torch.from_numpy(sound / np.float32(32768))[:RATE]
                seen: dict[int, list[np.ndarray]] = {}
                by_hooks(encoder, encoder.prepare(wave), dictionaries, {}, seen=seen)
                counted = encoder.spans(RATE)[:, 0] < len(sound) / RATE
                assert counted.sum() == stored["frame_count"][clip]
                codes[clip] = np.concatenate(seen[i], axis=1)[0, counted].mean(axis=0)
        layer = of.isel(layer=i)
        np.testing.assert_array_equal(layer["active"].transpose("clip", "neuron"), codes > 0)
        mean = layer["mean"].transpose("clip", "neuron")
        np.testing.assert_allclose(mean, codes, rtol=0, atol=1e-5 * codes.max())
        assert 0.05 < (codes > 0).mean() < 0.95

    if rows == "clip":  # without the encoder, of the stored states alone
        encode(url, "base", dictionaries, str(tmp_path / "l"), out_task="latents")
        encoded = open_store(str(tmp_path / "l"))["latents"].to_dataset().compute()
        assert stored_origin(str(tmp_path / "l"), "latents").identity == found.identity
        for name in ("clip", "active", "frame_count", "embedding", "site"):
            np.testing.assert_array_equal(encoded[name], of[name])
        np.testing.assert_allclose(encoded["mean"], of["mean"], rtol=0, atol=1e-5 * float(of["mean"].max()))


def test_the_identity_is_that_of_rows_dictionaries_and_what_they_were_made_of() -> None:
    encoder, one = load_encoder("tiny-ssl"), drawn(96, 2)
    identities = [
        origin_of(made, frames).identity
        for made, frames in (
            (spliced(encoder, [one]), "audio"),
            (spliced(encoder, [replace(one, rows="clip")]), "audio"),
            (spliced(encoder, [replace(one, state=1)]), "audio"),
            (spliced(encoder, [replace(one, decoder=2 * one.decoder)]), "audio"),
            (spliced(encoder, [one, one]), "audio"),
            (spliced(encoder, [one]), "all"),
            (spliced(encoder, [one]).at("bfloat16"), "audio"),
            (spliced(load_encoder("tiny-sl"), [one]), "audio"),
        )
    ]
    assert len({identity.weights for identity in identities}) == len(identities)
    assert [identity.precision for identity in identities] == ["float32"] * 6 + ["bfloat16", "float32"]
    elsewhere = origin_of(spliced(encoder, [one]), "audio", "cuda").identity  # as a store made there has it
    assert elsewhere == latents_origin(origin_of(encoder, "audio", "cuda"), [one]).identity
    assert elsewhere.device == "cuda"


def test_the_encoder_that_was_given_stays_as_it_is() -> None:
    encoder = load_encoder("tiny-ssl")
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    latents = spliced(encoder, [drawn(96, 2)])
    latents(latents.silence(RATE))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in encoder.module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in latents.module.modules())
    assert {id(p) for p in encoder.module.parameters()}.isdisjoint(id(p) for p in latents.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.module.state_dict().items())


Output = namedtuple("Output", ["state", "other"])


class Layer(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.mix = kind, nn.Linear(6, 6)

    def forward(self, hidden: Tensor, scale: float = 1.0) -> Any:
        state = hidden + scale * torch.tanh(self.mix(hidden))
        return {
            "tensor": state, "tuple": (state, 7), "list": [state, 7], "named": Output(state, 7),
            "dict": {"state": state, "other": 7}, "ordered": OrderedDict(state=state, other=7),
        }[self.kind]  # fmt: skip


class Layered(nn.Module):
    """Layers whose outputs are of some kind, given their input by position or by name."""

    def __init__(self, kind: str, by_name: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(kind) for _ in range(2))
        self.kind, self.by_name = kind, by_name

    def forward(self, frames: Tensor) -> Tensor:
        output = self.layers[0](scale=0.5, hidden=frames) if self.by_name else self.layers[0](frames, scale=0.5)
        return self.first(self.layers[1](self.first(output)))

    def first(self, output: Any) -> Tensor:
        if self.kind == "tensor":
            return output
        expected: type = {"tuple": tuple, "list": list, "named": Output, "dict": dict, "ordered": OrderedDict}[
            self.kind
        ]
        assert type(output) is expected
        parts = list(output.values() if isinstance(output, dict) else output)  # type: ignore[call-overload]
        assert parts[1:] == [7]
        return parts[0]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("kind", ["tensor", "tuple", "list", "named", "dict", "ordered"])
def test_whatever_a_layer_gives_its_first_tensor_is_changed(kind: str, by_name: bool) -> None:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "sample_rate": 60, "sites": ["layers.*.mix"], "transformer_layers": ["layers.*"],
        "prepare": lambda waveforms: waveforms.unfold(1, 6, 6),
    }  # fmt: skip
    encoder = Encoder(module=Layered(kind, by_name).eval(), **given)
    dictionaries = [drawn(6, state, latents=9, k=3) for state in (0, 1, 2)]
    latents = spliced(encoder, dictionaries)
    sounds = torch.randn(2, 60, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(latents(sounds), encoder(sounds))
    plain = Encoder(module=Layered("tensor", False).eval(), **given)
    plain.module.load_state_dict(encoder.module.state_dict())
    changes = {i: lambda codes: 0.5 * codes for i in range(3)}
    sites = [latents.module.get_submodule(name) for name in latents.sites]
    hooks = [site.register_forward_hook(lambda _module, _inputs, output: 0.5 * output) for site in sites]
    with torch.no_grad():
        found = latents(sounds).numpy()
    for hook in hooks:
        hook.remove()
    np.testing.assert_allclose(found, by_hooks(plain, plain.prepare(sounds), dictionaries, changes), atol=1e-5)
    assert np.abs(found - plain(sounds).detach().numpy()).max() > 1e-2


def test_a_model_that_runs_a_layer_several_times_is_refused_for_clip_rows_by_name() -> None:
    toy = replace(toy_encoder("plain"), name="toy", transformer_layers=["blocks.*"])
    frames, clips = (spliced(toy, [drawn(WIDTH, 2, latents=9, k=3, rows=rows)]) for rows in ("frame", "clip"))
    long, short = torch.ones(2, 4 * CHUNK), torch.ones(2, 2 * CHUNK)
    assert torch.equal(frames(long), toy(long))
    assert torch.equal(clips(short), toy(short))
    with pytest.raises(ValueError, match=r"toy runs blocks\.1 several times in a pass, .* 2 x 2 .* have 2 x 4; .*rows"):
        clips(long)
    # Each run on all frames at once, but two of them.
    twice = replace(toy, frame_spans=lambda n: spans(n, size=CHUNK)[:2])
    with pytest.raises(ValueError, match=r"toy runs blocks\.1 several times"):
        spliced(twice, [drawn(WIDTH, 2, latents=9, k=3, rows="clip")])(long)
    with pytest.raises(ValueError, match=r"run without its clips' lengths.*inside of `encoder\.counted"):
        clips.run(clips.prepare(short))


def test_clips_too_long_for_clip_rows_are_refused_before_the_first_pass_over_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """M2D runs clips over 1.1 s in pieces; the longest clip is the last."""
    tiny = load_encoder("tiny-ssl")
    assert tiny.longest == 17_919
    clips = spliced(tiny, [drawn(96, 1, rows="clip")])
    clips(clips.silence(tiny.longest))
    with pytest.raises(ValueError, match=r"tiny-ssl runs blocks\.0 several times in a pass"):
        clips(clips.silence(tiny.longest + 1))

    manifest, _ = write_corpus(tmp_path, [16_000, 9000, 17_919, 17_920], rate=RATE)
    spec, asked = written(tmp_path, "clip")[1], {"task": "t", "threads": 1, "device": "cpu", "block": 2}
    passes = count_calls(monkeypatch, "otoscope.extract.preflight.check_parity")
    before = sorted(tmp_path.iterdir())
    for unit_sec, pieces in ((None, "1.12 s, which it cuts"), (1.2, "1.2 s, which it cuts")):
        with pytest.raises(ValueError, match=f"encoder tiny-ssl runs its layers several times .* as long as {pieces}"):
            capture(spec, manifest, str(tmp_path / "s"), unit_sec=unit_sec, **asked)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == before
    assert not passes
    assert capture(spec, manifest, str(tmp_path / "s"), unit_sec=1.0, **asked).n_ok == 4  # type: ignore[arg-type]
    assert passes
    # Of a model that is not known to cut clips a pass over silence tells.
    toy = replace(toy_encoder("plain"), name="toy", transformer_layers=["blocks.*"])
    latents = spliced(toy, [drawn(WIDTH, 2, latents=9, k=3, rows="clip")])
    check_lengths(latents, 2 * CHUNK, [])
    with pytest.raises(ValueError, match=r"toy runs blocks\.1 several times in a pass"):
        check_lengths(latents, 4 * CHUNK, [])


def test_what_does_not_fit_is_refused_in_a_sentence() -> None:
    encoder, one = load_encoder("tiny-ssl"), drawn(96, 2)
    for saes, message in (
        (
            [drawn(95, 2)],
            "SAE of state 2 is of state 2, 95 wide, which in encoder tiny-ssl is 96 wide; expected one of",
        ),
        (
            [drawn(96, 5)],
            "is of state 5, 96 wide, which in encoder tiny-ssl is not there; expected one of its 5 states",
        ),
        ([one, replace(one, rows="clip")], "SAEs of more than one kind of rows"),
        ([], "no SAE was given"),
    ):
        with pytest.raises(ValueError, match=message):
            spliced(encoder, saes)
    with pytest.raises(ValueError, match="names no transformer layers, so it has no states that SAEs could be of"):
        spliced(replace(encoder, transformer_layers=()), [one])
    with pytest.raises(ValueError, match="encoder latents is one of latents already"):
        spliced(spliced(encoder, [one]), [one])
    other = replace(encoder, module=nn.Module())
    other.module.lock = (n for n in range(3))  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"tiny-ssl cannot be copied \(TypeError: .*copy.deepcopy takes"):
        spliced(other, [one])
    with pytest.raises(ValueError, match="was trained on states of another identity"):
        origin_of(spliced(encoder, [replace(one, base="0" * 64)]), "audio")


def test_what_cannot_be_loaded_is_refused_by_the_command(tmp_path: Path) -> None:
    manifest, _ = write_corpus(tmp_path, LENGTHS[:2], rate=RATE)
    _, spec = written(tmp_path, "clip", states=(1,))
    folder = tmp_path / "sae1"
    (tmp_path / "empty").mkdir()
    write_dictionary(drawn(96, 1, base="0" * 64), tmp_path / "other")
    write_dictionary(drawn(95, 1), tmp_path / "narrow")
    for asked, message in (
        (f"latents:{folder}", "no SAEs and encoder in .*; expected latents:SAE,SAE@ENCODER, where the first @ ends"),
        (f"latents:{folder}@", "no SAEs and encoder in"),
        (f"latents:{folder},@tiny-ssl", "no SAEs and encoder in"),
        ("latents:", "no encoder 'latents:'; expected one of"),
        (f"latents:{tmp_path}/empty@tiny-ssl", "no sae.json and sae.safetensors in .*empty; expected latents:SAE"),
        (f"latents:{tmp_path}/a@b@tiny-ssl", "no sae.json .*rename those with a comma or @ in their paths"),
        (f"latents:{folder}@b@tiny-ssl", "no encoder 'b@tiny-ssl' for SAEs; expected latents:SAE"),
        (f"latents:{folder}@{spec}", "no encoder 'latents:.*' for SAEs; expected"),
        (f"latents:{folder}@m2d:{tmp_path}/nothing", "nothing"),
        (f"latents:{folder},{tmp_path}/other@tiny-ssl", "SAEs of more than one kind of rows"),
        (f"latents:{tmp_path}/other@tiny-ssl", "was trained on states of another identity"),
        (f"latents:{tmp_path}/narrow@tiny-ssl", "is of state 1, 95 wide, which in encoder tiny-ssl is 96 wide"),
    ):
        given = ("extract", tmp_path / "s", "--encoder", asked, "--corpus", manifest, "--task", "t")
        refused(message, *given, watched=tmp_path)
    kept = ("extract", tmp_path / "s", "--encoder", spec, "--corpus", manifest, "--task", "t", "--keep", "hidden")
    refused("encoder latents names no transformer layers, so it has no hidden states to keep", *kept, watched=tmp_path)


def test_latents_are_loaded_again_where_a_file_has_changed_and_their_source_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,), spec = written(tmp_path, "frame", states=(1,))
    loaded, source = load_encoder(spec), source_of(spec)
    assert loaded.source == source
    assert load_encoder(spec) is loaded
    write_dictionary(replace(one, decoder=2 * one.decoder), tmp_path / "sae1")
    again = load_encoder(spec)
    assert again is not loaded
    assert again.source == source_of(spec) != source
    monkeypatch.setattr(registry, "read_dictionary", None)  # a source is known without weights
    copy = tmp_path / "elsewhere"
    write_dictionary(replace(one, decoder=2 * one.decoder), copy)
    assert source_of(f"latents:{copy}@tiny-ssl") == again.source
