"""Figures of what SAEs are worth: what is drawn is what the table says, controls are dashed; what is none is a line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer

from otoscope.analysis.figures.factors import TOP, disentanglement_figure, entropy_figure, families_figure
from otoscope.analysis.figures.of_tables import KINDS, figure_of_table
from otoscope.analysis.figures.probes import probes_figure

from ...support.commands import done, refused

STATES, SPARSITIES = (2, 3), (0.75, 0.95)
KINDS_OF_UNITS = ("state", "neurons", "principal components", "latents", "untrained")
FAMILIES = ("pitch", "mfcc", "")


def units() -> list[dict[str, Any]]:
    """What is compared: of each state itself, two kinds without an SAE, and two SAEs of each sparsity."""
    found = []
    for state in STATES:
        found += [{"state": state, "kind": kind, "sparsity": np.nan, "control": None} for kind in KINDS_OF_UNITS[:3]]
        for sparsity in SPARSITIES:
            for seed, control in enumerate(("none", "none", "untrained")):
                found.append(
                    {"state": state, "kind": "latents", "sparsity": sparsity, "control": control, "seed": seed}
                )
    return found


@pytest.fixture
def probes() -> pd.DataFrame:
    table = pd.DataFrame(units())
    rng = np.random.default_rng(0)
    accuracy = rng.uniform(0.4, 0.8, len(table))
    return table.assign(
        accuracy=accuracy, low=accuracy - 0.1, high=accuracy + 0.05, chance=0.1, how="t:digit; 5 folds",
        unexplained=np.where(table["kind"] == "latents", rng.uniform(0.1, 0.4, len(table)), np.nan),
    )  # fmt: skip


@pytest.fixture
def factors() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = []
    for i, of in enumerate(units()):
        for j in range(15):
            r2 = rng.uniform(-0.1, 0.6) if j < 12 else -0.1
            rows.append(
                {
                    **of, "of": of["kind"], "digest": f"{i}" * (of["kind"] == "latents"), "factor": f"f{j}",
                    "family": FAMILIES[j % 3], "r2": r2, "predicted": r2 > 0.2, "published_r2": rng.uniform(0.1, 0.9),
                    "codes_until": rng.integers(1, 50) if r2 > 0.2 else np.nan, "how": "60 clips",
                    "published_completeness": rng.uniform(0.5, 1), "entropy": np.nan if j == 7 else rng.uniform(-3, 3),
                    "histogram_entropy": rng.uniform(0, 3.3),
                }
            )  # fmt: skip
    return pd.DataFrame(rows).drop(columns="kind")


def across(ax: Axes) -> list[tuple[float, bool]]:
    """Heights of the lines across, and which are dashed."""
    lines = [line for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    return [(float(line.get_ydata()[0]), line.is_dashed()) for line in lines]  # type: ignore[index]


def dots(ax: Axes) -> dict[str, list[list[float]]]:
    """Where dots are, by "filled" or "hollow"."""
    found: dict[str, list[list[float]]] = {"filled": [], "hollow": []}
    for line in ax.lines:
        if line.get_linestyle() == "None":
            hollow = to_hex(line.get_markerfacecolor()) == "#ffffff"
            found["hollow" if hollow else "filled"] += np.asarray(line.get_xydata()).tolist()
    return found


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(sorted(map(tuple, found)), sorted(map(tuple, expected)))


def test_probes_are_drawn_by_state_and_by_sparsity(probes: pd.DataFrame) -> None:
    left, middle, right = probes_figure(probes, "a caption").axes
    of_states = probes[probes["kind"] == "state"]
    same(left.lines[0].get_xydata(), of_states[["state", "accuracy"]].to_numpy())
    latents = probes[probes["kind"] == "latents"]
    for ax, value in ((middle, "accuracy"), (right, "unexplained")):
        for look, own in (("filled", latents["control"] == "none"), ("hollow", latents["control"] == "untrained")):
            same(dots(ax)[look], latents.loc[own, ["sparsity", value]].to_numpy())
    others = probes[probes["kind"] != "latents"]
    expected = [(value, kind != "state") for value, kind in zip(others["accuracy"], others["kind"], strict=True)]
    same(across(middle), [*expected, (0.1, True)])
    means = [line for line in middle.lines if len(line.get_xydata()) == 2 and line.get_linestyle() != "None"]
    solid = [line for line in means if not line.is_dashed() and list(line.get_xdata()) != [0, 1]]
    trained = latents[latents["control"] == "none"].groupby(["state", "sparsity"])["accuracy"].mean()
    same([line.get_ydata() for line in solid], trained.unstack().to_numpy())
    assert len(probes_figure(probes[probes["kind"] == "state"]).axes) == 1
    assert len(probes_figure(probes.assign(unexplained=np.nan)).axes) == 2


def test_disentanglement_is_that_of_the_highest_and_of_what_is_predicted(factors: pd.DataFrame) -> None:
    panels = dict(
        zip(
            ("published_r2", "r2", "published_completeness", "codes_until"),
            disentanglement_figure(factors, "c").axes,
            strict=True,
        )
    )
    by_units = factors.groupby(["state", "of", "digest"])
    for value, ax in panels.items():
        expected: dict[str, list[Any]] = {"filled": [], "hollow": []}
        lines = []
        for (state, of, _), own in by_units:
            if value.startswith("published"):
                number = np.sort(own[value])[-TOP:].mean()
            else:
                base = factors.loc[factors["predicted"] & (factors["state"] == state), "factor"]
                number = own.loc[own["factor"].isin(base), value].mean()
            if of == "latents":
                first = own.iloc[0]
                expected["filled" if first["control"] == "none" else "hollow"].append((first["sparsity"], number))
            else:
                lines.append((number, of != "state"))
        for look, points in expected.items():
            same(dots(ax)[look], points)
        same(across(ax), lines)


def test_families_are_counted(factors: pd.DataFrame) -> None:
    left, right = families_figure(factors).axes
    trained = factors[(factors["of"] == "latents") & (factors["control"] == "none")]
    for ax, counted in ((left, "published_r2"), (right, "predicted")):
        expected = []
        for state in STATES:
            for family in FAMILIES:
                per_sae = []
                for _, own in trained[trained["state"] == state].groupby("digest"):
                    kept = own.sort_values(counted).tail(TOP) if counted != "predicted" else own[own["predicted"]]
                    per_sae.append(int((kept["family"] == family).sum()))
                expected.append(np.mean(per_sae))
        np.testing.assert_allclose(
            [bar.get_height() for bars in ax.containers if isinstance(bars, BarContainer) for bar in bars], expected
        )
        labels = [text.get_text() for text in ax.get_xticklabels()]
        assert labels == ["pitch (5)", "mfcc (5)", "others (5)"]
        styles = [lines.get_linestyle()[0][1] for lines in ax.collections if len(lines.get_segments()) == 3]  # type: ignore[attr-defined]
        assert sum(dashes is not None for dashes in styles) == 3 * len(STATES)
        assert sum(dashes is None for dashes in styles) == 2 * len(STATES)  # with bars of deviation


def test_entropy_has_a_dot_per_factor_of_the_sparsity_nearest_to_the_published(factors: pd.DataFrame) -> None:
    left, right = entropy_figure(factors, "a caption").axes
    trained = factors[(factors["control"] == "none") & (factors["sparsity"] == 0.95)]
    same(dots(left)["filled"], trained[["histogram_entropy", "published_completeness"]].to_numpy())
    same(dots(right)["filled"], trained[["entropy", "codes_until"]].dropna().to_numpy())
    lines = [line for line in left.lines if line.get_linestyle() != "None"]
    assert sum(line.is_dashed() for line in lines) == 3 * len(STATES)
    own = factors[(factors["of"] == "state") & (factors["state"] == 2)].sort_values("histogram_entropy")
    thirds = own[["histogram_entropy", "published_completeness"]].to_numpy().reshape(5, 3, 2)
    (thin,) = [
        line for line in lines if not line.is_dashed() and np.isclose(line.get_xdata()[0], np.median(thirds[0, :, 0]))
    ]
    np.testing.assert_allclose(thin.get_xydata(), np.median(thirds, axis=1))


def test_the_commands_draw_them_and_refuse_other_tables(
    probes: pd.DataFrame, factors: pd.DataFrame, tmp_path: Path
) -> None:
    probes.to_csv(tmp_path / "probes.csv", index=False)
    factors.to_parquet(tmp_path / "factors.parquet", index=False)
    for kind in KINDS:
        table = tmp_path / ("probes.csv" if kind == "probes" else "factors.parquet")
        done("figure", kind, table, "-o", tmp_path / f"{kind}.svg")
        assert ("60 clips" if kind != "probes" else "t:digit") in (tmp_path / f"{kind}.svg").read_text()
        done("figure", kind, table, "-o", tmp_path / f"{kind}.svg", "--caption", "none")
        assert "clips" not in (tmp_path / f"{kind}.svg").read_text()
    factors.to_csv(tmp_path / "factors.csv", index=False)
    assert figure_of_table("entropy", str(tmp_path / "factors.csv")).axes
    factors.drop(columns=["r2", "digest"]).to_csv(tmp_path / "lacks.csv", index=False)
    factors.assign(r2="x").to_csv(tmp_path / "words.csv", index=False)
    factors.head(0).to_csv(tmp_path / "empty.csv", index=False)
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name, message in {
        "lacks.csv": "has no column digest nor r2; expected a table as `otoscope sae disentangle",
        "words.csv": "is not a valid table .*; expected", "empty.csv": "has no rows; expected",
        "noise.parquet": "is not a valid table .*; expected", "absent.csv": "no file .*absent.csv; expected",
    }.items():  # fmt: skip
        refused(message, "figure", "entropy", tmp_path / name, "-o", tmp_path / "x.pdf", watched=tmp_path)
    table = tmp_path / "factors.csv"
    refused("found 2 results; expected one", "figure", "families", table, table, "-o", "x.pdf", watched=tmp_path)
    refused("--task .*figure families", "figure", "families", table, "--task", "t", "-o", "x.pdf", watched=tmp_path)
