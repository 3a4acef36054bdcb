"""SAEs to and from other libraries: each one's own arithmetic on exported weights, the way back, what is refused."""

import io
import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from otoscope.extract.models.dictionary import Dictionary, read_dictionary, write_dictionary
from otoscope.sae.formats import LIBRARIES, files
from otoscope.sae.formats.files import MODULES, export_dictionary, import_dictionaries, write_imported
from otoscope.sae.formats.foreign import Given
from otoscope.store.changes.tasks import stored_origin
from otoscope.store.provenance import digest_of

from ..support.commands import done, refused

Weights = dict[str, np.ndarray]
Config = dict[str, Any]
NONE = Given()
AUDIO_SAE = Given(state=1, rows="frame")


def dictionary_of(latents: int = 24, width: int = 10, k: int = 3, seed: int = 0, **changes: Any) -> Dictionary:
    dice = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=dice)

    made = Dictionary(
        encoder=draw(latents, width), bias=draw(latents), decoder=draw(latents, width), centre=3 * draw(width), k=k,
        state=2, rows="clip", base="ab" * 32, name="one", about={"config": {"sparsity": "0.75"}, "fve": 0.7},
    )  # fmt: skip
    return replace(made, **changes)


def batch_topk(dictionary: Dictionary, threshold: float = 0.5) -> Dictionary:
    return replace(dictionary, k=0, threshold=torch.full((dictionary.n_latents,), threshold))


def without_centre(dictionary: Dictionary) -> Dictionary:
    return replace(dictionary, centre=torch.zeros(dictionary.width))


def fitting(dictionary: Dictionary, library: str) -> Dictionary:
    return without_centre(dictionary) if library == "published" else dictionary


# Each library's own arithmetic, as its source has it, in numpy and float64


def largest(pre: np.ndarray, k: int) -> np.ndarray:
    """ReLU, and only the k largest of each row."""
    positive = np.maximum(pre, 0)
    codes = np.zeros_like(positive)
    at = np.argsort(-positive, axis=1, kind="stable")[:, :k]
    np.put_along_axis(codes, at, np.take_along_axis(positive, at, 1), 1)
    return codes


def by_saelens(x: np.ndarray, w: Weights, c: Config) -> tuple[np.ndarray, np.ndarray]:
    pre = (x - w["b_dec"] * c["apply_b_dec_to_input"]) @ w["W_enc"] + w["b_enc"]
    z = largest(pre, c["k"]) if c["architecture"] == "topk" else np.maximum(pre, 0) * (pre > w["threshold"])
    return z, z @ w["W_dec"] + w["b_dec"]


def by_sparsify(x: np.ndarray, w: Weights, c: Config) -> tuple[np.ndarray, np.ndarray]:
    z = largest((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], c["k"])
    return z, z @ w["W_dec"] + w["b_dec"]


def by_dictionary_learning(x: np.ndarray, w: Weights, c: Config) -> tuple[np.ndarray, np.ndarray]:
    pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
    kind = c["trainer"]["dict_class"]
    z = largest(pre, int(w["k"])) if kind == "AutoEncoderTopK" else np.maximum(pre, 0) * (pre > w["threshold"])
    return z, z @ w["decoder.weight"].T + w["b_dec"]


def by_published(x: np.ndarray, w: Weights, c: Config) -> tuple[np.ndarray, np.ndarray]:
    z = largest(x @ w["encoder.0.weight"].T + w["encoder.0.bias"], c["k"])
    return z, z @ w["decoder.weight"].T


ARITHMETIC: dict[str, Callable[[np.ndarray, Weights, Config], tuple[np.ndarray, np.ndarray]]] = {
    "saelens": by_saelens, "sparsify": by_sparsify, "dictionary_learning": by_dictionary_learning,
    "published": by_published,
}  # fmt: skip


def files_of(folder: Path, library: str) -> tuple[Weights, Config]:
    """Weights and configuration as the library's own code would find them."""
    module = MODULES[library]
    config = json.loads((folder / module.CONFIG).read_text())
    file = folder / module.WEIGHTS
    if file.suffix == ".safetensors":
        return safetensors.numpy.load_file(file), config
    return {key: value.numpy() for key, value in torch.load(file, weights_only=True).items()}, config


def check_codes(dictionary: Dictionary, library: str, folder: Path, states: np.ndarray) -> None:
    """The same codes: the same latents, save where float32 cannot tell two apart, at values to rounding."""
    weights, config = files_of(folder, library)
    codes, reconstructed = ARITHMETIC[library](
        states.astype(float), {key: value.astype(float) for key, value in weights.items()}, config
    )
    ours = dictionary.encode(torch.from_numpy(states))
    assert (codes > 0).any()
    np.testing.assert_allclose(ours, codes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dictionary.decode(ours), reconstructed, rtol=1e-4, atol=1e-3)


def states_of(dictionary: Dictionary, n: int = 50) -> np.ndarray:
    noise = np.random.default_rng(5).standard_normal((n, dictionary.width))
    return (noise + dictionary.centre.numpy()).astype("f4")


CASES = [(library, kind) for library in LIBRARIES for kind in ("topk", "threshold")]
CASES = [case for case in CASES if case not in (("sparsify", "threshold"), ("published", "threshold"))]


@pytest.mark.parametrize(("library", "kind"), CASES)
def test_codes_are_those_of_the_library_and_the_way_back_gives_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, library: str, kind: str
) -> None:
    @settings(max_examples=12, deadline=None, database=None, derandomize=True)
    @drawn(st.integers(2, 40), st.integers(1, 12), st.data())
    def holds(latents: int, width: int, data: st.DataObject) -> None:
        k = data.draw(st.integers(1, latents - 1))
        dictionary = fitting(dictionary_of(latents, width, k, seed=latents * 100 + width), library)
        if kind == "threshold":
            dictionary = replace(batch_topk(dictionary), about={"imported": {"k": k}})
        folder = tmp_path_factory.mktemp("formats")
        write_dictionary(dictionary, folder / "sae")
        export_dictionary(dictionary, library, folder / "theirs")
        check_codes(dictionary, library, folder / "theirs", states_of(dictionary))
        (back,) = import_dictionaries(folder / "theirs", library, NONE)
        write_imported([back], folder / "back")
        for file in ("sae.safetensors", "sae.json"):
            assert (folder / "back" / file).read_bytes() == (folder / "sae" / file).read_bytes()
        assert back.digest == dictionary.digest

    holds()


def test_thresholds_of_single_latents_go_to_saelens(tmp_path: Path) -> None:
    dictionary = replace(dictionary_of(), k=0, threshold=torch.linspace(0, 2, 24))
    export_dictionary(dictionary, "saelens", tmp_path / "theirs")
    check_codes(dictionary, "saelens", tmp_path / "theirs", states_of(dictionary))
    (back,) = import_dictionaries(tmp_path / "theirs", "saelens", NONE)
    assert back.digest == dictionary.digest


def test_files_of_others(tmp_path: Path) -> None:
    """Without what an export of ours adds, and with what theirs have beside."""
    topk = dictionary_of()
    export_dictionary(topk, "saelens", tmp_path / "a")
    edited(tmp_path / "a", "cfg.json", metadata={"model_name": "gpt2", "hook_name": "blocks.3"}, device="cuda")
    (back,) = import_dictionaries(tmp_path / "a", "saelens", Given(state=2, rows="clip"))
    assert (back.digest, back.base) == (topk.digest, "")
    assert back.about["imported"]["from"] == "saelens"

    export_dictionary(replace(topk, k=4), "sparsify", tmp_path / "b")
    edited(tmp_path / "b", "cfg.json", otoscope=None, num_latents=0, expansion_factor=2, multi_topk=True)
    with pytest.raises(ValueError, match=r"encoder.weight is \(24, 10\); expected \(20, 10\)"):
        import_dictionaries(tmp_path / "b", "sparsify", Given(state=0, rows="frame"))
    export_dictionary(dictionary_of(20), "sparsify", tmp_path / "c")
    edited(tmp_path / "c", "cfg.json", otoscope=None, num_latents=0, expansion_factor=2, multi_topk=True)
    (back,) = import_dictionaries(tmp_path / "c", "sparsify", Given(state=0, rows="frame"))
    assert (back.n_latents, back.state, back.rows) == (20, 0, "frame")

    weights = safetensors.numpy.load_file(tmp_path / "c" / "sae.safetensors")
    halved = {key: torch.from_numpy(value).bfloat16() for key, value in weights.items()}
    safetensors.torch.save_file(halved, tmp_path / "c" / "sae.safetensors")
    (back,) = import_dictionaries(tmp_path / "c", "sparsify", Given(state=0, rows="frame"))
    assert torch.equal(back.encoder, halved["encoder.weight"].float())
    doubled = {key: torch.from_numpy(value).double() for key, value in weights.items()}
    safetensors.torch.save_file(doubled, tmp_path / "c" / "sae.safetensors")
    (back,) = import_dictionaries(tmp_path / "c", "sparsify", Given(state=0, rows="frame"))
    assert torch.equal(back.decoder.double(), doubled["W_dec"])
    doubled["b_dec"] += 1e-12
    safetensors.torch.save_file(doubled, tmp_path / "c" / "sae.safetensors")
    with pytest.raises(ValueError, match=r"b_dec holds torch.float64 that float32 does not hold exactly"):
        import_dictionaries(tmp_path / "c", "sparsify", Given(state=0, rows="frame"))


def test_a_centre_in_the_decoder_alone_is_refused_by_its_field(tmp_path: Path) -> None:
    dictionary = dictionary_of(64, 32, 8)
    for made, name in ((dictionary, "a"), (batch_topk(dictionary, 0.1), "c")):
        export_dictionary(made, "saelens", tmp_path / name)
        edited(tmp_path / name, "cfg.json", apply_b_dec_to_input=False)
        given = ("sae", "import", tmp_path / name, "--from", "saelens", "-o", tmp_path / "out")
        refused("apply_b_dec_to_input is False and b_dec is not 0; expected True", *given, watched=tmp_path)

    plain = without_centre(dictionary)
    export_dictionary(plain, "saelens", tmp_path / "b")
    edited(tmp_path / "b", "cfg.json", apply_b_dec_to_input=False)
    (back,) = import_dictionaries(tmp_path / "b", "saelens", NONE)
    assert back.digest == plain.digest


# AudioSAE and the paper's own


def audio_sae(folder: Path, layers: tuple[int, ...], **changes: Any) -> dict[int, Dictionary]:
    """Folders as AudioSAE publishes them; their dictionaries."""
    made = {}
    for n in layers:
        made[n] = replace(
            batch_topk(dictionary_of(seed=n), 0.1 * n), state=n, rows="frame", about={"imported": {"k": 3}}
        )
        export_dictionary(made[n], "dictionary_learning", folder / f"layer_{n}")
        flat = {"activation_dim": 10, "dict_size": 24, "k": 3, "lr": 2e-4, "steps": 200_000, **changes}
        (folder / f"layer_{n}" / "config.json").write_text(json.dumps(flat))
    return made


def test_folders_of_audio_sae_become_an_sae_each(tmp_path: Path) -> None:
    (tmp_path / "hubert").mkdir()
    made = audio_sae(tmp_path / "hubert", (1, 2, 10))
    (tmp_path / "hubert" / "README.md").write_text("a card")
    out = imported_by_command("dictionary_learning", tmp_path / "hubert", tmp_path / "saes")
    assert [line.split(": ")[1] for line in out.splitlines()] == [
        f"24 latents of state {n}, frame rows" for n in (1, 2, 10)
    ]
    for n, dictionary in made.items():
        assert read_dictionary(tmp_path / "saes" / f"layer_{n}").digest == dictionary.digest
    (one,) = import_dictionaries(tmp_path / "hubert" / "layer_2", "dictionary_learning", NONE)
    assert (one.state, one.rows, one.digest) == (2, "frame", made[2].digest)
    assert one.about["imported"]["k"] == 3
    arguments = ("sae", "import", tmp_path / "hubert", "--from", "dictionary_learning", "-o", tmp_path / "x")
    refused("--state was given for the 3 layers", *arguments, "--state", 1, watched=tmp_path)

    rewritten(tmp_path / "hubert" / "layer_10" / "ae.pt", threshold=None)
    refused("layer_10 .*threshold is missing .*--per-row", *arguments, watched=tmp_path)
    rewritten(tmp_path / "hubert" / "layer_10" / "ae.pt", threshold=torch.tensor(-1.0))
    refused("threshold is -1, as before it is learnt.*--per-row", *arguments, watched=tmp_path)
    found = import_dictionaries(tmp_path / "hubert", "dictionary_learning", Given(per_row=True))
    assert [(one.k, one.threshold) for one in found] == [(3, None)] * 3
    row = states_of(found[2], 1)
    w = {
        key: v.astype(float) for key, v in files_of(tmp_path / "hubert" / "layer_10", "dictionary_learning")[0].items()
    }
    flat = np.maximum((row - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0).ravel()
    flat[flat < np.sort(flat)[-3]] = 0  # BatchTopK of a batch of one row
    np.testing.assert_allclose(found[2].encode(torch.from_numpy(row))[0], flat, rtol=1e-5)


def test_an_sae_of_the_papers_wrapper(tmp_path: Path) -> None:
    made = [without_centre(dictionary_of(seed=n)) for n in range(3)]
    layout = MODULES["published"].LAYOUT
    state = {f"saes.{j}.{key}": v for j, one in enumerate(made) for key, v in layout.theirs(one).items()}
    torch.save({**state, "encoder.model.layers.0.weight": torch.ones(3)}, tmp_path / "best.pth")
    given = Given(state=2, rows="clip", k=3)
    for j, one in enumerate(made):
        (back,) = import_dictionaries(tmp_path / "best.pth", "published", replace(given, sae=j))
        assert back.digest == one.digest
    for sae, message in (
        (None, "no --sae was given; expected one of 0, 1, 2"),
        (3, "--sae is 3; expected one of 0, 1"),
    ):
        with pytest.raises(ValueError, match=message):
            import_dictionaries(tmp_path / "best.pth", "published", replace(given, sae=sae))
    torch.save(layout.theirs(made[0]), tmp_path / "one.pt")
    assert import_dictionaries(tmp_path / "one.pt", "published", given)[0].digest == made[0].digest
    with pytest.raises(ValueError, match="--sae is 1, and there is one SAE"):
        import_dictionaries(tmp_path / "one.pt", "published", replace(given, sae=1))
    with pytest.raises(ValueError, match="k is not in published files; expected --k"):
        import_dictionaries(tmp_path / "one.pt", "published", replace(given, k=None))
    with pytest.raises(ValueError, match="k 24 of 24 latents; expected 1 to 23"):
        import_dictionaries(tmp_path / "one.pt", "published", replace(given, k=24))


# The states of a store


def test_an_sae_is_checked_against_a_store(tmp_path: Path, finished: Any) -> None:
    origin = stored_origin(finished.url, "t")
    states, width = origin.identity.hidden
    dictionary = replace(dictionary_of(width=width), state=states - 1, base="", about={})
    export_dictionary(dictionary, "saelens", tmp_path / "theirs")
    out = imported_by_command("saelens", tmp_path / "theirs", tmp_path / "out", "--base", finished.url, "--task", "t")
    assert out.startswith(f"{tmp_path / 'out'}: 24 latents of state {states - 1}, clip rows")
    assert read_dictionary(tmp_path / "out").base == digest_of(origin.identity.to_json())
    for name, changes in (("wide", {"width": width + 1}), ("deep", {"width": width, "state": states})):
        export_dictionary(dictionary_of(**{"base": "", **changes}), "saelens", tmp_path / name)
        asked = ("sae", "import", tmp_path / name, "--from", "saelens", "-o", tmp_path / "no", "--base", finished.url)
        refused(f"expected one of the {states} states", *asked, "--task", "t", watched=tmp_path)
        refused("--base was given alone", *asked, watched=tmp_path)
    export_dictionary(dictionary_of(width=width), "saelens", tmp_path / "other")
    asked = ("sae", "import", tmp_path / "other", "--from", "saelens", "-o", tmp_path / "no", "--base", finished.url)
    refused("trained on states of another identity", *asked, "--task", "t", watched=tmp_path)


# What is refused


def edited(folder: Path, name: str, **fields: Any) -> None:
    """Change fields of a configuration; None takes one out."""
    config = json.loads((folder / name).read_text())
    holder = config.get("trainer", config)
    for field, value in fields.items():
        where = config if field == "otoscope" else holder
        where.pop(field, None)
        where |= {} if value is None else {field: value}
    (folder / name).write_text(json.dumps(config))


def rewritten(file: Path, **tensors: Any) -> None:
    """Change tensors of a file of torch; None takes one out."""
    found = {**torch.load(file, weights_only=True), **{key.replace("__", "."): v for key, v in tensors.items()}}
    torch.save({key: value for key, value in found.items() if value is not None}, file)


def imported_by_command(library: str, folder: Path, output: Path, *more: object) -> str:
    from ..support.commands import call

    result = call("sae", "import", folder, "--from", library, "-o", output, *more)
    assert result.exit_code == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("library", "dictionary", "message"),
    [
        ("sparsify", batch_topk(dictionary_of()), "threshold decides over its codes; expected k"),
        ("published", batch_topk(dictionary_of()), "threshold decides over its codes; expected k"),
        ("published", dictionary_of(), "centre is not 0; expected 0"),
        (
            "dictionary_learning", replace(dictionary_of(), k=0, threshold=torch.linspace(0, 1, 24)),
            "threshold differs between latents; expected one number",
        ),
        ("dictionary_learning", replace(batch_topk(dictionary_of()), about={}), "k of its training is not known"),
    ],
)  # fmt: skip
def test_what_a_library_cannot_hold_is_not_exported(
    tmp_path: Path, library: str, dictionary: Dictionary, message: str
) -> None:
    write_dictionary(dictionary, tmp_path / "sae")
    refused(message, "sae", "export", tmp_path / "sae", "--to", library, "-o", tmp_path / "out", watched=tmp_path)


def test_export_by_command_and_over_what_is_there(tmp_path: Path) -> None:
    write_dictionary(batch_topk(dictionary_of()), tmp_path / "sae")
    asked = ("sae", "export", tmp_path / "sae", "--to", "dictionary_learning", "-o", tmp_path / "out")
    assert done(*asked) == f"{tmp_path / 'out'}: 24 latents of state 2, as dictionary_learning keeps them\n"
    assert files_of(tmp_path / "out", "dictionary_learning")[1]["trainer"]["k"] == 6  # a quarter of 24
    refused("is there already; expected a new folder", *asked, watched=tmp_path)
    refused("no folder", *asked[:-1], tmp_path / "no" / "out", watched=tmp_path)
    refused("no sae.json", *asked[:2], tmp_path, *asked[3:-1], tmp_path / "new", watched=tmp_path)


@pytest.mark.parametrize(
    ("library", "fields", "message"),
    [
        ("saelens", {"normalize_activations": "layer_norm"}, "normalize_activations is 'layer_norm'; expected 'none'"),
        ("saelens", {"reshape_activations": "hook_z"}, "reshape_activations is 'hook_z'"),
        ("saelens", {"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm is True; expected False"),
        ("saelens", {"rescale_acts_by_decoder_norm": 0}, "rescale_acts_by_decoder_norm is 0; expected False"),
        ("saelens", {"architecture": "gated"}, "architecture is 'gated'; expected 'topk' or 'jumprelu'"),
        ("saelens", {"architecture": None}, "architecture is None"),
        ("saelens", {"architecture": "jumprelu"}, "threshold is missing"),
        ("saelens", {"activation_scale": 2.0}, "activation_scale may change the codes"),
        ("saelens", {"k": True}, "k is True; expected a whole number"),
        ("saelens", {"k": 24}, "k 24 of 24 latents"),
        ("saelens", {"d_in": 24, "d_sae": 10}, r"W_enc is \(10, 24\); expected \(24, 10\)"),
        ("saelens", {"otoscope": {"state": 1}}, "otoscope lacks one of"),
        ("sparsify", {"skip_connection": True}, "skip_connection is True; expected False"),
        ("sparsify", {"transcode": True}, "transcode is True; expected False"),
        ("sparsify", {"activation": "groupmax"}, "activation is 'groupmax'"),
        ("sparsify", {"d_in": None}, "d_in is missing"),
        ("sparsify", {"signed": True}, "signed may change the codes"),
        ("dictionary_learning", {"dict_class": "GatedAutoEncoder"}, "dict_class is 'GatedAutoEncoder'"),
        ("dictionary_learning", {"dict_class": None}, "dict_class is None"),
        ("dictionary_learning", {"k": 4}, "k is 3 in ae.pt and 4 in config.json"),
        ("dictionary_learning", {"dict_size": 25}, r"encoder.weight is \(24, 10\); expected \(25, 10\)"),
        ("published", {"k": None}, "k is not in published files"),
        ("published", {"centre": True}, "centre may change the codes"),
    ],
)
def test_fields_that_would_change_numbers_are_refused(
    tmp_path: Path, library: str, fields: Config, message: str
) -> None:
    export_dictionary(fitting(dictionary_of(), library), library, tmp_path / "theirs")
    edited(tmp_path / "theirs", MODULES[library].CONFIG, **fields)
    refused(message, "sae", "import", tmp_path / "theirs", "--from", library, "-o", tmp_path / "o", watched=tmp_path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_damaged_and_foreign_weights_are_refused(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = fitting(dictionary_of(), library)
    folder, module = tmp_path / "theirs", MODULES[library]
    export_dictionary(dictionary, library, folder)
    asked = ("sae", "import", folder, "--from", library, "-o", tmp_path / "out")
    file = folder / module.WEIGHTS
    whole, first = file.read_bytes(), module.LAYOUT.keys["encoder"]

    def check(message: str) -> None:
        refused(message, *asked, watched=tmp_path)
        file.write_bytes(whole)

    def save(tensors: dict[str, Tensor]) -> None:
        if file.suffix == ".pt":
            torch.save(tensors, file)
        else:
            safetensors.torch.save_file(tensors, file)

    theirs = {key: torch.from_numpy(value.copy()) for key, value in files_of(folder, library)[0].items()}
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        check("whole (torch checkpoint|safetensors file)")
    file.write_bytes(np.random.default_rng(0).bytes(4000))
    check("whole (torch checkpoint|safetensors file)")
    save({key: value for key, value in theirs.items() if key != first})
    check(f"{first} is missing")
    save({**theirs, "W_skip": torch.ones(10, 10)})
    check("W_skip found; expected")
    save({**theirs, first: theirs[first].T.contiguous()})
    check(r"is \(\d+, \d+\); expected|\w is \(\d+,?\); expected")
    for bad in (theirs[first].clone().fill_(np.nan), theirs[first].clone().fill_(np.inf)):
        save({**theirs, first: bad})
        check("encoder of SAE theirs holds NaN or infinity")
    save({**theirs, first: torch.ones(theirs[first].shape, dtype=torch.int32)})
    check(f"{first} holds torch.int32")
    save({**theirs, first: torch.zeros(0, 0)})
    check(r"expected")
    with monkeypatch.context() as patch:
        patch.setattr(files, "MAX_BYTES", len(whole) - 1)
        check(f"has {len(whole)} bytes; expected at most {len(whole) - 1}")

    config = (folder / module.CONFIG).read_text()
    for text, message in (
        ("[]", "holds a list"),
        ("{", "cannot be read"),
        ('{"k": NaN}', "holds nan"),
        (None, "no file"),
    ):
        (folder / module.CONFIG).unlink()
        if text is not None:
            (folder / module.CONFIG).write_text(text)
        check(message)
    (folder / module.CONFIG).write_text(config)
    file.unlink()
    refused("no file", *asked, watched=tmp_path)
    refused("no .*absent; expected", *asked[:2], tmp_path / "absent", *asked[3:], watched=tmp_path)


class Opens:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("library", ["dictionary_learning", "published"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, library: str) -> None:
    module, run = MODULES[library], tmp_path / "run"
    export_dictionary(without_centre(dictionary_of()), library, tmp_path / "theirs")
    asked = ("sae", "import", tmp_path / "theirs", "--from", library, "-o", tmp_path / "out")
    buffer = io.BytesIO()
    torch.save({"encoder.weight": Opens(run)}, buffer)
    for data in (buffer.getvalue(), pickle.dumps({"encoder.weight": Opens(run)})):
        (tmp_path / "theirs" / module.WEIGHTS).write_bytes(data)
        refused("expected|fetch it again", *asked, watched=tmp_path)
        assert not run.exists()


def test_what_is_given_must_not_contradict_the_files(tmp_path: Path) -> None:
    export_dictionary(dictionary_of(), "saelens", tmp_path / "theirs")
    asked = ("sae", "import", tmp_path / "theirs", "--from", "saelens", "-o", tmp_path / "out")
    refused("--state is 3, and state is 2 by the files", *asked, "--state", 3, watched=tmp_path)
    refused("--rows is frame, and rows is clip by the files", *asked, "--rows", "frame", watched=tmp_path)
    refused("--k was given for files of saelens", *asked, "--k", 3, watched=tmp_path)
    refused("--per-row was given for files of saelens", *asked, "--per-row", watched=tmp_path)
    edited(tmp_path / "theirs", "cfg.json", metadata={})
    refused("state is not in the files; expected --state", *asked, watched=tmp_path)
    refused("rows is not in the files; expected --rows, clip or frame", *asked, "--state", 0, watched=tmp_path)
    imported_by_command("saelens", tmp_path / "theirs", tmp_path / "out", "--state", 2, "--rows", "clip")
    refused("is there already", *asked, "--state", 2, "--rows", "clip", watched=tmp_path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_nothing_is_half_written_where_the_disk_is_full(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(self: Path, data: bytes) -> int:
        written.append(self)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_dictionary(fitting(dictionary_of(), library), library, tmp_path / "out")
    assert re.search(r"\.out\.\w+\.partial$", str(written[0].parent))
    assert not any(tmp_path.iterdir())
