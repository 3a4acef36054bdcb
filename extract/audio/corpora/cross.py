"""A crossed corpus: every chosen sound with every prompt, so that sound and words vary apart.

Goal: from a manifest with categories and a table of prompts to a balanced manifest, from which analyses of variance can
tell what a neuron owes to the sound and what to the words.
Conventions: a prompt is a text with one {audio}, where the sound stands. Rows are in order of sound. Of K categories J
sounds each are drawn, of each split where the manifest has a column `split`; of L text classes there are M wordings
each. Beside the manifest's own columns (but for the label, which becomes `audio_class`) there are `audio`, the sound's
name; `wording`, as "ANG/2", of one text class; and `replicate`, as "3-2": sounds of all categories with the first
number, and wordings of all text classes with the second, are each other's partners in a swap. Rows of controls have no
`audio_class` and no `text_class`, so that no statistic of those counts them; `control` says which they are.
"""

import os
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ....files import whole_file
from ....messages import quoted
from ..audio_root import Folder
from ..clip import AUDIO
from ..corpus import Corpus
from ..manifest import RESERVED, corpus_of
from ..text_table import read_text_table
from .build import Built, write_manifest

OWN = ("audio_class", "text_class", "audio", "wording", "replicate", "control")
SILENCE, NEUTRAL = "silence", "neutral"
RATE = 16_000  # of the silent file; any will do
MAX_SILENCE = 600  # seconds


def cross(
    manifest: Corpus | str | Path | pd.DataFrame,
    prompts: str | Path,
    output: str | Path,
    *,
    label: str,
    clips: int,
    seed: int = 0,
    same: Sequence[str] = (),
    silence: float | None = None,
    neutral: str | None = None,
    audio_root: str | Path | None = None,
) -> Built:
    """Write the manifest of a crossed corpus, and say what it holds.

    manifest: sounds, as of `corpus_of`. prompts: table of `prompt`, `text_class` and maybe `wording`, a name that is
        not twice in a text class; where all classes have the same names these match them, else their order does.
    label: column of the manifest that sorts sounds into categories. clips: J, sounds of each category (and split).
    same: columns of which sound j of every category has the same values, as ("speaker", "sentence").
    silence: seconds; adds the control of a silent sound with every prompt, a file beside the manifest.
    neutral: adds the control of this prompt with every sound.
    Raises FileNotFoundError for files that are not there; ValueError for tables that are not such, for too few sounds,
    for `same` that cannot be, and for an output that exists with other content; LookupError for a column that the
    manifest does not have.
    """
    output = Path(os.path.abspath(output))
    if output.suffix.lower() != ".csv":
        raise ValueError(f"{output}: expected a name ending in .csv; rename it")
    corpus, texts = corpus_of(manifest, audio_root), read_prompts(prompts)
    rows = sounds_of(corpus, label)
    chosen = draw(rows, clips, seed, same)
    table = chosen.loc[chosen.index.repeat(len(texts))].reset_index(drop=True)
    asked = pd.concat([texts] * len(chosen), ignore_index=True)
    table = table.assign(
        prompt=asked["prompt"], text_class=asked["text_class"], wording=asked["wording"],
        replicate=table["replicate"] + "-" + asked["number"], control="",
    )  # fmt: skip
    root, controls = corpus.clips.root, []
    home = os.path.abspath(str(root)) if isinstance(root, Folder) else str(root)
    if neutral is not None:
        check_prompt(neutral, "--neutral")
        controls.append(chosen.assign(prompt=neutral, wording=NEUTRAL, control=NEUTRAL))
    if silence is not None:
        _check_silence(silence, is_local=isinstance(root, Folder))
        file = output.with_name(f"{output.stem}-silence.wav")
        row = {"path": file.name if str(output.parent) == home else str(file), "audio": SILENCE, "control": SILENCE}
        controls.append(texts[["prompt", "wording"]].assign(**row))
    for control in controls:
        table = pd.concat([table, control.assign(audio_class="", text_class="", replicate="")], ignore_index=True)
    if not controls:
        table = table.drop(columns="control")
    table = table.fillna("")
    table["id"] = table["audio"] + "+" + table["wording"]
    if corpus.unit_sec is not None:
        table["unit_sec"] = f"{corpus.unit_sec:g}"
    first = [name for name in ("path", "id", "start", "stop", "prompt", *OWN) if name in table]
    table = table[[*first, *table.columns.difference(first, sort=False)]]
    write_manifest(table, home, output)
    if silence is not None:
        _write_silence(file, silence)
    counts = {name: len(set(table[name]) - {""}) for name in ("audio_class", "text_class")}
    per = f"{len(chosen)} sounds x {len(texts)} prompts"
    return Built(manifest=output, n_clips=len(table), categories=counts, notes=(per,))


def read_prompts(path: str | Path) -> pd.DataFrame:
    """Prompts in the order of their classes and wordings: prompt, text_class, wording ("ANG/2"), number ("2").

    Raises as `cross`.
    """
    table = read_text_table(path if "://" in str(path) else Path(path))
    found, expected = list(map(str, table.columns)), ["prompt", "text_class"]
    if set(found) - {"wording"} != set(expected):
        raise ValueError(
            f"{path}: expected the columns prompt, text_class and maybe wording, found "
            f"{', '.join(map(quoted, found))}; rename, add or drop some"
        )
    for number, prompt in enumerate(table["prompt"], start=2):
        check_prompt(prompt, f"{path} row {number}")
    empty = np.flatnonzero(table["text_class"].str.strip() == "")
    if empty.size:
        raise ValueError(f"{path}: row {empty[0] + 2} has no text_class; expected one in every row; fill it in")
    again = table["prompt"].duplicated()
    if again.any():
        raise ValueError(
            f"{path}: {quoted(table['prompt'][again].iloc[0])} is there twice; expected each prompt once; reword it"
        )
    classes = list(dict.fromkeys(table["text_class"]))
    numbers = table.groupby("text_class", sort=False).cumcount() + 1
    names = table["wording"] if "wording" in table else numbers.astype(str)
    if "wording" in table and (twice := pd.DataFrame({"class": table["text_class"], "name": names}).duplicated()).any():
        raise ValueError(
            f"{path}: wording {quoted(names[twice].iloc[0])} is twice in text_class "
            f"{quoted(table['text_class'][twice].iloc[0])}; expected each once; rename it"
        )
    sizes = table["text_class"].value_counts(sort=False)
    if len(classes) < 2 or sizes.max() < 2:
        raise ValueError(
            f"{path}: {len(classes)} text classes of {sizes.max()} wordings; expected at least two classes of two "
            "wordings each, as one wording cannot be told from its class; add some"
        )
    if sizes.min() != sizes.max():
        raise ValueError(
            f"{path}: {quoted(str(sizes.idxmax()))} has {sizes.max()} wordings and {quoted(str(sizes.idxmin()))} "
            f"{sizes.min()}; expected as many of every text class; add or drop some"
        )
    sets = [list(names[table["text_class"] == name]) for name in classes]
    if all(set(some) == set(sets[0]) for some in sets):
        numbers = names.map({name: k for k, name in enumerate(sets[0], start=1)})
    wording = table["text_class"] + "/" + names
    texts = table[expected].assign(wording=wording, number=numbers.astype(str), order=numbers)
    rank = texts["text_class"].map({name: k for k, name in enumerate(classes)})
    return texts.assign(rank=rank).sort_values(["rank", "order"], ignore_index=True).drop(columns=["rank", "order"])


def check_prompt(prompt: str, where: str) -> None:
    """Raise ValueError for a prompt in which {audio} is not once."""
    n = prompt.count(AUDIO)
    if n != 1:
        raise ValueError(f"{where}: {quoted(prompt)} has {n} {AUDIO}; expected one, where the sound stands; correct it")


def sounds_of(corpus: Corpus, label: str) -> pd.DataFrame:
    """The clips of a corpus that have a category: path, start, stop where there are any, audio, audio_class, columns.

    Raises LookupError for a column that it does not have, ValueError for prompts and for columns named as ours.
    """
    table, labels = corpus.clips.table, corpus.labels
    taken = [name for name in (*OWN, "prompt") if name in (*labels, *table)]
    if taken:
        raise ValueError(
            f"the manifest has a column {taken[0]!r}, which a crossed corpus makes; expected plain sounds: take the "
            "manifest that it was made of, or rename the column"
        )
    if label not in labels:
        raise LookupError(f"no column {label!r} in the manifest; it has {', '.join(map(str, labels)) or 'no labels'}")
    rows = pd.DataFrame({"path": table["path"], "audio": table["name"], "audio_class": labels[label]})
    for edge in ("start", "stop"):
        if table[edge].notna().any():
            rows[edge] = table[edge].map(lambda seconds: "" if np.isnan(seconds) else repr(float(seconds)))
    rows = rows.join(labels.drop(columns=label))
    return rows[rows["audio_class"] != ""]


def draw(rows: pd.DataFrame, n: int, seed: int, same: Sequence[str] = ()) -> pd.DataFrame:
    """`n` sounds of each category, of each split, with their `replicate`; sorted by category, then replicate.

    rows: as of `sounds_of`. same: columns of which sounds of one replicate have the same values.
    What is drawn depends on names and seed alone, not on the order of rows. Raises as `cross`.
    """
    categories = sorted(set(rows["audio_class"]))
    if len(categories) < 2 or n < 2:
        raise ValueError(
            f"{len(categories)} categories of {n} clips; expected at least two of two each, as one clip cannot be told "
            "from its category: take another --label, or more --clips"
        )
    absent = [name for name in same if name not in rows or name in RESERVED]
    if absent:
        raise LookupError(f"no column {absent[0]!r} in the manifest for --same; it has {', '.join(rows.columns)}")
    parts = [""] if "split" not in rows else sorted(set(rows["split"]) - {""})
    chosen = []
    for number, part in enumerate(parts):
        some = rows if part == "" else rows[rows["split"] == part]
        where = f" in split {part!r}" if part else ""
        # By name, so that the same sounds are drawn whatever the order of a manifest.
        some = some.sort_values("audio").sample(frac=1, random_state=np.random.default_rng([seed, number]))
        if same:
            alike = some.drop_duplicates(["audio_class", *same])
            full = alike.groupby(list(same), sort=False)["audio_class"].transform("nunique") == len(categories)
            groups = alike[full].drop_duplicates(list(same))[list(same)].head(n)
            if len(groups) < n:
                raise ValueError(
                    f"{len(groups)} of the combinations of {' and '.join(same)} have a clip of each of the "
                    f"{len(categories)} categories{where}; expected {n} for --same: ask for fewer --clips or columns"
                )
            groups = groups.assign(replicate=np.arange(number * n + 1, (number + 1) * n + 1).astype(str))
            chosen.append(alike.merge(groups, on=list(same)))
            continue
        kept = some[some.groupby("audio_class").cumcount() < n]
        counts = kept["audio_class"].value_counts().reindex(categories, fill_value=0)
        if counts.min() < n:
            raise ValueError(
                f"category {quoted(str(counts.idxmin()))} has {counts.min()} clips{where}; expected {n} of each: ask "
                "for fewer --clips"
            )
        numbers = kept.groupby("audio_class").cumcount() + number * n + 1
        chosen.append(kept.assign(replicate=numbers.astype(str)))
    table = pd.concat(chosen, ignore_index=True)
    order = table.assign(order=table["replicate"].astype(int)).sort_values(["audio_class", "order"]).index
    return table.loc[order].reset_index(drop=True)


def _check_silence(seconds: float, *, is_local: bool) -> None:
    if not 0 < seconds <= MAX_SILENCE:
        raise ValueError(f"--silence is {seconds:g}; expected seconds above 0, up to {MAX_SILENCE}")
    if not is_local:
        raise ValueError("--silence writes a file, and these clips lie elsewhere; expected a folder of this machine")


def _write_silence(file: Path, seconds: float) -> None:
    """A WAV file of zeros."""
    with whole_file(file) as unfinished, wave.open(str(unfinished), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(bytes(2 * round(seconds * RATE)))
