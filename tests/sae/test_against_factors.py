"""Laws of states and latents against factors: rows are those of the core, whatever lies where, and what does not belong
together is a line.
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from otoscope.extract.models.dictionary import read_dictionary
from otoscope.sae.against_factors import sae_disentangle
from otoscope.sae.disentanglement import disentangle
from otoscope.sae.encoding import encode
from otoscope.sae.entropy import histogram_entropy
from otoscope.sae.units import signed_components

from ..support.commands import done, refused
from ..support.stored_states import FAILED_CLIPS, N_CLIPS, States, codes_in_numpy, make_states, write_dictionaries

FACTORS = ("F0semitoneFrom27.5Hz_sma3nz_amean", "mfcc1_sma3_amean", "tempo")
SHORT = 8  # a clip too short for factors


@pytest.fixture(scope="module")
def states() -> States:
    return make_states()


@pytest.fixture(scope="module")
def table(states: States) -> pd.DataFrame:
    """Factors: one dimension of state 1, one latent, and noise; of all clips in another order."""
    rng = np.random.default_rng(0)
    names = np.array(states.clips.name)
    digests = np.arange(N_CLIPS, dtype=np.uint64) + np.uint64(1 << 63)
    planted = np.stack([states.hidden[1, :, 0], states.hidden[1, :, -1], np.zeros(N_CLIPS)])
    columns = planted + rng.normal(0, 0.3, planted.shape)
    made = pd.DataFrame({"clip": names, "audio_digest": digests, **dict(zip(FACTORS, columns, strict=True))})
    made["reason"] = np.where(np.arange(N_CLIPS) == SHORT, "too short: 400 samples", "")
    made.loc[SHORT, list(FACTORS)] = np.nan
    return made.sample(frac=1, random_state=0)


@pytest.fixture(scope="module")
def folder(states: States, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("factors")
    states.write(str(folder / "s"))
    encode(str(folder / "s"), "t", write_dictionaries(states, folder), str(folder / "l"))
    table.to_parquet(folder / "F.parquet", index=False)
    return folder


def command(folder: Path, *more: object, factors: str = "F.parquet", group: str = "singer") -> tuple[object, ...]:
    asked = ("sae", "disentangle", folder / "s", "--task", "t", "--factors", folder / factors)
    return (*asked, *(("--group", group) if group else ()), *more)


def test_rows_are_those_of_the_core_on_plain_arrays(
    states: States, table: pd.DataFrame, folder: Path, tmp_path: Path
) -> None:
    done(*command(folder, folder / "l", "-o", tmp_path / "d.parquet"))
    found = pd.read_parquet(tmp_path / "d.parquet")
    clips = np.setdiff1d(np.arange(N_CLIPS), [*FAILED_CLIPS, SHORT])
    factors = table.sort_index().loc[clips, list(FACTORS)].to_numpy(float)
    groups = np.array(states.clips.labels["singer"])[clips]
    saes = [read_dictionary(folder / name) for name in ("topk", "threshold")]
    expected = []
    for state in (1, 2):
        values = states.hidden[state, clips]
        expected += [("state", state, "", values), ("principal components", state, "", signed_components(values))]
    expected += [
        ("latents", sae.state, sae.digest, codes_in_numpy(sae, states.hidden[sae.state, clips])) for sae in saes
    ]
    assert len(found) == 3 * 6
    for i, (of, state, digest, codes) in enumerate(expected):
        own = found.iloc[3 * i : 3 * i + 3].reset_index(drop=True)
        assert set(zip(own["of"], own["state"], own["digest"], own["codes"], strict=True)) == {
            (of, state, digest, codes.shape[1])
        }
        assert own["factor"].tolist() == list(FACTORS)
        assert own["family"].tolist() == ["pitch", "mfcc", ""]
        l0 = (codes > 0).sum(axis=1).mean()
        assert own["l0"][0] == pytest.approx(l0 if digest else np.nan, nan_ok=True)
        core = disentangle(codes, factors, groups)
        for name in ("r2", "r2_se", "predicted", "codes_until", "effective_codes", "published_completeness"):
            np.testing.assert_array_equal(own[name], core[name])
        assert own["published_average"][0] == pytest.approx(float(core["published_average"]))
        np.testing.assert_allclose(own["histogram_entropy"], [histogram_entropy(v) for v in factors.T])
        assert own["entropy"].notna().all()
        assert (own["tied"] == 0).all()
    assert found["predicted"].tolist()[:3] == [True, True, False]


def test_states_alone_and_clips_for_themselves(folder: Path, table: pd.DataFrame) -> None:
    """Of a table that was never written."""
    found = sae_disentangle(str(folder / "s"), [], table, task="t", states=[2, 0], folds=3)
    assert found["state"].tolist() == [0] * 6 + [2] * 6
    assert set(found["of"]) == {"state", "principal components"}


def test_what_does_not_belong_together_is_a_line(
    states: States, table: pd.DataFrame, folder: Path, tmp_path: Path
) -> None:
    here = tmp_path / "x"
    shutil.copytree(folder, here)
    for name, other in (
        ("lacks", table[table["clip"] != "clip 5 é"]),
        ("audio", table.assign(audio_digest=table["audio_digest"].where(table["clip"] != "clip 5 é", 7))),
        ("columns", table.drop(columns="audio_digest")),
        ("twice", pd.concat([table, table.head(1)])),
        ("none", table.drop(columns=list(FACTORS))),
        ("short", table.assign(reason="too short")),
        ("nan", table.assign(tempo=np.nan)),
    ):
        other.to_parquet(here / f"{name}.parquet", index=False)
    (here / "csv.parquet").write_text("clip,audio_digest\n")
    for name, message in {
        "lacks": "has no factors for 1 of the 103 clips of .* task t, the first 'clip 5 é'; expected",
        "audio": "has factors of other audio for 1 of the 103 clips of .*, the first 'clip 5 é'; expected",
        "columns": "has no column audio_digest; expected",
        "twice": "has clip 'clip .*' more than once; expected",
        "none": "has no numeric factors",
        "short": "has no factors of any clip .*, of the first: too short; expected some",
        "nan": "factor tempo holds NaN or infinity; expected",
        "csv": "is not a valid table of factors .*; expected a table as `otoscope sae factors",
        "absent": "no file .*absent.parquet; expected",
    }.items():
        refused(message, *command(here, here / "l", factors=f"{name}.parquet"), watched=tmp_path)
    refused("8 groups for 9 folds; expected as many", *command(here, here / "l", "--folds", 9), watched=tmp_path)
    refused("--folds is 2; expected at least 3", *command(here, here / "l", "--folds", 2), watched=tmp_path)
    refused(
        "no label column 'singers' to group clips by; its columns: ", *command(here, group="singers"), watched=tmp_path
    )
    refused("has no hidden state 3; expected 0 to 2", *command(here, "--state", 3), watched=tmp_path)
    refused("--state is 'a'; expected numbers", *command(here, "--state", "a"), watched=tmp_path)
    refused("no hidden state was asked for", *command(here), watched=tmp_path)
    refused("holds no latents; expected those of", *command(here, here / "s"), watched=tmp_path)
    fewer = states.head(64)
    fewer.write(str(here / "fewer"))
    encode(str(here / "fewer"), "t", [str(here / "topk")], str(here / "lf"))
    refused(
        "has 62 clips, not the same as the 103 of .*; expected latents of all",
        *command(here, here / "lf"),
        watched=tmp_path,
    )
    states.write(str(here / "open"), [0])
    asked = ("sae", "disentangle", here / "open", "--task", "t", "--factors", here / "F.parquet", "--state", 1)
    refused("is not finished, .* clips are pending; expected none", *asked, watched=tmp_path)
    make_states(hidden=False).write(str(here / "bare"))
    asked = ("sae", "disentangle", here / "bare", "--task", "t", "--factors", here / "F.parquet", "--state", 1)
    refused("keeps no hidden states; expected them", *asked, watched=tmp_path)
