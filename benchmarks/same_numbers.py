"""Are the numbers of two checkouts the same, to the last bit?

    python -m benchmarks.same_numbers CHECKOUT [--keep DIR]        another checkout (a `git worktree`) against this one

Both run the same commands over the bundled corpora and encoders, with the same seeds: the quickstart, extractions of
every kind of variable and rule, tables, nulls, selectors, exemplars, published files, figures, probes, and ablations
in all modes with both kinds of control. Then every file is compared: stored arrays, tables and results value by value
(float by float, NaN equal to NaN, types too), all else byte by byte. What was renamed between the two is listed below
and translated; ids that are digests of names, and figures with other words on an axis, are left out. Nothing is
recorded: floats differ from machine to machine.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
import zarr
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]

OPTIONS = {
    "ablate": {"--splits": "--division", "--clips": "--selected-on", "--clip-table": "--clips"},
    "exemplars": {"--lowest": "--least"},
}
"""By command, as they are here and as they were."""
RENAMED = {
    "named": "predicted", "named_before": "predicted_before", "named_after": "predicted_after", "pull": "target_margin",
    "clip_named_before": "clip_predicted_before", "clip_named_after": "clip_predicted_after",
    "named_toward": "predicted_target", "squares": "confusions",
}  # fmt: skip
"""Measures, columns and keys of results, as they were and as they are here."""
IDS = ("digest", "learnt", "train_digest", "request", "why", "long_names", "measures", "format")
"""Keys whose values are made of names: requests by other words have other digests, and files of them another format.
The measures are in the rows."""
REWORDED = ("selectivity.png", "transplant.png")
"""Figures with an axis that is called otherwise now; what they draw is compared as tables and results."""

SSL, SL, FM, EVENTS = "tiny-ssl.zarr", "tiny-sl.zarr", "--task fm:octave", "--task events:event"


def commands() -> Iterator[str]:
    """The commands, in a folder that holds what the quickstart wrote; its audio is in audio/."""
    of_events = "--encoder tiny-ssl --corpus audio/events.csv"
    every = "--keep mean,positive_frames,embedding,hidden --mean-dtype float32"
    yield f"extract kinds.zarr {of_events} --task audio {every} --block 64 --batch 16 --threads 1"
    yield f"extract kinds.zarr {of_events} --task cut --unit-sec 0.4 --block 100"
    for frames in ("published", "all"):
        yield f"extract {frames}.zarr {of_events} --task t --frames {frames} --unit-sec 1.3"
    yield "extract kinds.zarr --encoder tiny-ssl --corpus audio/head.csv --task grown --block 40"
    yield f"extract kinds.zarr {of_events} --task grown"
    yield f"extract ray.zarr {of_events} --task t --executor ray --actors 2 --threads 1"
    for reading in ("clip", "frame", "any"):
        for rule in ("lape", "paper"):
            how, name = f"--reading {reading} --rule {rule} --percentile 5", f"{reading}-{rule}.csv"
            yield f"neurons {SSL} {FM} {how} -o neurons-{name}"
            yield f"table stats {SSL} {SL} {how} -o stats-{name}"
            yield f"table overlap {SSL} {FM} --against additive:octave {how} -o over-{name}"
    for kind in ("probability", "aape", "depth", "thresholds", "paper"):
        task = "" if kind in ("thresholds", "paper") else FM
        yield f"table {kind} {SSL} {task} --threshold 0.05 --percentile fm=4 -o {kind}.csv"
    for by in ("labelling", "layer", "category", "neuron"):
        stores, task = SSL if by == "neuron" else f"{SSL} {SL}", "" if by in ("labelling", "neuron") else FM
        yield f"compare {stores} --by {by} {task} --percentile 5 -o compare-{by}.csv"
    yield f"exemplars {SSL} --task fm --neuron 1,7 --neuron 3,300 -k 12 -o exemplars.csv"
    yield f"exemplars {SSL} --task fm --neurons neurons-clip-lape.csv -k 3 --lowest -o least.csv"
    yield f"selectors {SSL} {FM} --percentile 5 -o selectors.csv"
    shuffled = "--percentile 5 --permutations 60 --seed 3 --bootstrap 40"
    for rows in ("cells", "categories", "neurons"):
        yield f"null {SSL} {FM} {shuffled} --rows {rows} -o null-{rows}.csv"
    yield f"null {SSL} {FM} {shuffled} --against additive:octave --figure null.png -o null-against.csv"
    yield f"null {SSL} {EVENTS} {shuffled} --reading frame --rule paper --balanced -o null-frame.csv"
    yield f"null {SSL} {FM} {shuffled} --within split --reading any -o null-within.csv"
    for kind in ("overlap", "depth", "selectivity"):
        yield f"figure {kind} {SSL} {SL} {FM} --percentile 5 -o {kind}.png"
    yield f"figure overlap {SSL} {FM} --percentile 5 --permutations 40 -o marked.svg"
    yield f"export {SSL} {FM} published"
    yield "import published imported.csv"
    yield f"ablate set {SSL} {FM} --percentile 5 --set all(2) -o set.csv"
    run = f"ablate run {SSL} {FM} --percentile 5 --encoder tiny-ssl --controls 12 --corpus audio/fm.csv"
    for mode in ("remove", "mean", "keep", "keep-mean"):
        yield f"{run} --set shared(1,2) --mode {mode} -o {mode}.parquet --clip-table {mode}-clips.csv"
    for mode in ("category-mean", "transplant"):
        yield f"{run} --set all(3) --mode {mode} --category 5 -o {mode}.parquet --seed 4"
    yield f"{run} --set only(1) --mode gain --gain 0.5 --match rate,mean -o matched.parquet"
    by_hand = run.replace(" --percentile 5", "")
    yield f"{by_hand} --set '(1,3) (2,200)' --control published --probe published -o published.parquet"
    yield f"{run} --set all(4) --clips train --splits split --probe probe -o train.parquet"
    yield f"{run} --set all(4) --side either --probe-seed 7 --executor ray -o ray.parquet"
    yield "ablate table remove.parquet -o remove-table.csv"
    yield "figure ablation transplant.parquet -o transplant.png"


def run_all(checkout: Path, folder: Path) -> None:
    """The quickstart, then every command, by a checkout's package."""
    environment = {"PYTHONPATH": str(checkout.resolve() / "src"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}

    def otoscope(*words: str, cwd: Path, refusals: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
        old = (checkout / "src/otoscope/cli.py").is_file()
        code = f"from otoscope.cli{'' if old else '.main'} import main; main()"
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        if done.returncode not in (0, *refusals):
            raise SystemExit(f"{checkout}: otoscope {' '.join(words)}\n{done.stderr[-2000:]}")
        return done

    def spelt(words: list[str]) -> list[str]:
        """In this checkout's options; the first of a command's new ones says whose they are."""
        names = OPTIONS.get(words[0], {})
        if not names.keys() & set(words) or next(iter(names)) in otoscope(*words[:2], "--help", cwd=folder).stdout:
            return words
        return [names.get(word, word) for word in words]

    print(f"{checkout}: quickstart", flush=True)
    otoscope("quickstart", str(folder / "out"), cwd=folder)
    out = folder / "out"
    lines = (out / "audio/events.csv").read_text().splitlines(keepends=True)
    (out / "audio/head.csv").write_text("".join(lines[:151]))
    codes = []
    for command in commands():
        given = spelt(shlex.split(command))
        print(" ", *given, flush=True)
        codes.append(otoscope(*given, cwd=out, refusals=(2,)).returncode)  # a reading may saturate on these encoders
    (out / "codes.json").write_text(json.dumps(codes))


def translated(value: Any) -> Any:
    """What a result says, in today's words and without ids."""
    if isinstance(value, Mapping):
        return {RENAMED.get(key, key): translated(item) for key, item in value.items() if key not in IDS}
    if isinstance(value, list):
        return [translated(item) for item in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def table_of(path: Path) -> pd.DataFrame:
    """A table in today's words; of a result also what its schema's metadata say."""
    if path.suffix == ".csv":
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # the digits as they are written
    else:
        frame = pd.read_parquet(path)
        about = (pq.read_schema(path).metadata or {}).get(b"otoscope")
        if about is not None:
            frame.attrs["about"] = json.dumps(translated(json.loads(about)), sort_keys=True)
    frame.columns = [translated(str(name)) for name in frame.columns]
    return frame.map(lambda cell: translated(cell) if isinstance(cell, str) else cell)


def same_tables(one: pd.DataFrame, two: pd.DataFrame) -> str:
    """Where two tables differ, "" where they do not; columns may stand in another order."""
    if sorted(one.columns) != sorted(two.columns) or len(one) != len(two):
        return f"{sorted(one.columns)} x {len(one)} against {sorted(two.columns)} x {len(two)}"
    if one.attrs != two.attrs:
        return f"metadata {one.attrs['about'][:2000]}\nagainst\n{two.attrs['about'][:2000]}"
    for name in one:
        a, b = one[name].tolist(), two[name].tolist()
        if not all(np.array_equal(x, y, equal_nan=not isinstance(x, str)) for x, y in zip(a, b, strict=True)):
            return f"column {name}"
    return ""


def same_stores(one: Path, two: Path) -> Iterator[str]:
    """Where two stores differ: every array of every task, its type, values and attributes."""
    first, second = (zarr.open_group(str(path), mode="r", use_consolidated=False) for path in (one, two))
    names = [{name for name, _ in group.members(max_depth=2)} for group in (first, second)]
    if names[0] != names[1]:
        yield f"{one.name}: {sorted(names[0] ^ names[1])} in one of them only"
    for name in sorted(names[0] & names[1]):
        a, b = first[name], second[name]
        if dict(a.attrs) != dict(b.attrs):
            yield f"{one.name}/{name}: attributes"
        if isinstance(a, zarr.Array) and isinstance(b, zarr.Array):
            x, y = np.asarray(a[...]), np.asarray(b[...])
            if x.dtype != y.dtype or not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
                yield f"{one.name}/{name}: {x.dtype} {x.shape} against {y.dtype} {y.shape}"
    if dict(first.attrs) != dict(second.attrs):
        yield f"{one.name}: attributes of the root"


def differences(one: Path, two: Path) -> Iterator[str]:
    """Every difference between the outputs of two checkouts, one line each."""
    stores = sorted(path.name for path in one.iterdir() if path.suffix == ".zarr")
    n_files = 0
    for name in stores:
        yield from same_stores(one / name, two / name)

    def files(folder: Path) -> set[str]:
        found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] not in stores}

    if files(one) != files(two):
        yield f"files {sorted(files(one) ^ files(two))} in one of them only"
    for name in sorted(files(one) & files(two)):
        a, b = one / name, two / name
        n_files += 1
        if a.suffix in (".csv", ".parquet"):
            found = same_tables(table_of(a), table_of(b))
        elif a.suffix == ".pt":
            x, y = (torch.load(path, weights_only=True) for path in (a, b))
            found = "" if x.dtype == y.dtype and torch.equal(x, y) else "tensors"
        elif a.suffix == ".safetensors":
            tensors = load_file(a), load_file(b)
            same = tensors[0].keys() == tensors[1].keys() and all(
                np.array_equal(tensors[0][k], tensors[1][k]) for k in tensors[0]
            )
            found = "" if same else "tensors"
        elif a.suffix == ".json":
            texts = [json.dumps(translated(json.loads(path.read_text())), sort_keys=True) for path in (a, b)]
            found = "" if texts[0] == texts[1] else f"{texts[0][:1000]}\nagainst\n{texts[1][:1000]}"
        elif a.suffix == ".md" or name in REWORDED:
            found = ""  # words for people
        else:
            found = "" if a.read_bytes() == b.read_bytes() else "bytes"
        if found:
            yield f"{name}: {found}"
    print(f"compared {len(stores)} stores and {n_files} files", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_numbers", description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where the outputs stay; those of CHECKOUT are used again"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        for name, checkout in (("before", options.checkout), ("after", ROOT)):
            if name == "before" and (folder / name / "done").is_file():
                continue
            (folder / name).mkdir(parents=True, exist_ok=name == "before")
            run_all(checkout, folder / name)
            (folder / name / "done").touch()
        found = list(differences(folder / "before/out", folder / "after/out"))
    print("\n".join(found) or "equal")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
