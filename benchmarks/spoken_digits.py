"""What each rule selects from real speech, and what of it holds up on clips that did not select it.

    python -m benchmarks.spoken_digits WAVS STORE

WAVS: folder of the Free Spoken Digit Dataset's recordings, {digit}_{speaker}_{take}.wav; takes 0 to 4 are its test
clips. STORE is made of them by `tiny-ssl`, with its manifest beside it, unless it is there. The data are not part of
this project.

Columns: medians over the selected neurons, and over all, of AAPE / ln C at the rule's own threshold and at the
neuron's 80th percentile; categories per selected neuron; coverage; these by all clips. Then, of cells (neuron,
category) selected without the test clips: the median AUC on the test clips, the share whose one-sided p there is at
most 0.05, and the same share with the test clips' labels shuffled.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import mannwhitneyu

import otoscope
from otoscope.analysis import aape, class_specific
from otoscope.analysis.selection.rules import coverage_ratio
from otoscope.analysis.selection.selection import Selection
from otoscope.analysis.tables import markdown

from .selection import OWN, PUBLISHED, contrast

RULES = {
    **{name: Selection(rule=rule, threshold=line, percentile=5) for name, (rule, line) in PUBLISHED.items()},
    "contrast": Selection(rule="contrast"),
}
SHUFFLES, LEVEL = 20, 0.05


def manifest_of(folder: Path) -> pd.DataFrame:
    """Path, digit, speaker and split of every recording."""
    rows = []
    for file in sorted(folder.glob("*_*_*.wav")):
        digit, speaker, take = file.stem.split("_")
        rows.append((str(file.resolve()), digit, speaker, "test" if int(take) < 5 else "train"))
    return pd.DataFrame(rows, columns=["path", "digit", "speaker", "split"])


def members(ds: xr.Dataset, label: str, how: Selection) -> xr.DataArray:
    """bool (layer, neuron, category) of the clips that the selection admits."""
    if how.rule == "contrast":
        return contrast(ds["mean"], ds.otoscope.codes(label, how), how)
    return class_specific(ds.otoscope.probability(label, how).compute(), how)["member"]


def row(ds: xr.Dataset, label: str, how: Selection) -> dict[str, float]:
    member = members(ds, label, how)
    selected = member.any("category")
    line = OWN if how.rule == "contrast" else how.threshold
    found = {"neurons": float(selected.sum())}
    for name, threshold in (("own threshold", line), (OWN, OWN)):
        entropy = aape(ds.otoscope.probability(label, threshold=threshold).compute(), normalised=True)
        found |= {
            f"AAPE/ln C, {name}": float(entropy.where(selected).median()),
            f"all, {name}": float(entropy.median()),
        }
    found["categories"] = float(member.sum("category").where(selected).mean())
    found["coverage"] = float(coverage_ratio(member))
    return found | held_out(ds, label, how)


def held_out(ds: xr.Dataset, label: str, how: Selection) -> dict[str, float]:
    member = members(ds, label, replace(how, where=("split!=test",))).values
    if not member.any():
        return {}
    test = ds.otoscope.codes(label, Selection(where=("split=test",))).values
    mean = ds["mean"].values[:, :, test >= 0].astype(np.float64)
    codes = test[test >= 0]
    auc, holds = tested(mean, codes, member)
    rng = np.random.default_rng(0)
    shuffled = [tested(mean, rng.permutation(codes), member)[1].mean() for _ in range(SHUFFLES)]
    return {"held-out AUC": float(np.median(auc)), "holds up": holds.mean(), "shuffled": float(np.mean(shuffled))}


def tested(mean: np.ndarray, codes: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each member, and whether its one-sided p is low enough; mean (layer, neuron, clip)."""
    found = []
    for category in range(member.shape[2]):
        values, inside = mean[member[:, :, category]], codes == category
        if len(values):
            u, p = mannwhitneyu(
                values[:, inside], values[:, ~inside], alternative="greater", axis=1, method="asymptotic"
            )
            found.append((u / (inside.sum() * (~inside).sum()), p <= LEVEL))
    auc, holds = zip(*found, strict=True)
    return np.concatenate(auc), np.concatenate(holds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spoken_digits")
    parser.add_argument("folder", metavar="WAVS", type=Path)
    parser.add_argument("store", metavar="STORE", type=Path)
    options = parser.parse_args()
    if not options.store.exists():
        manifest = options.store.with_suffix(".csv")
        manifest_of(options.folder).to_csv(manifest, index=False)
        otoscope.capture("tiny-ssl", manifest, str(options.store), task="digits", threads=2)
    ds = otoscope.open(str(options.store))["digits"].to_dataset().load()
    for label in ("digit", "speaker"):
        rows = [{"rule": name, **row(ds, label, how)} for name, how in RULES.items()]
        print(f"\n{label}\n{markdown(pd.DataFrame(rows).round(3))}", flush=True)


if __name__ == "__main__":
    main()
