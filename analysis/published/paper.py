"""The conventions of the published study: its percentiles, the names of its files, and its Tables I and II.

Goal: output under the names that published notebooks look for, and one table over all models and tasks.
Conventions: a task goes by the name of its corpus here and by the name of its evaluation task there; where that is not
published it is our inference, as docs/published.md says. "ssl" and "sl" are how the encoder was trained.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = {"esc50": 2.0, "gise51": 2.0}
"""Share of neurons that the paper selects, in percent; 1 for any other task."""
SUFFIXES = {"ssl": "analysis", "sl": "vit"}
TASKS = {
    "cremad:emotion": "cremad",
    "cremad:gender": "cremad_gender",
    "nsynth:family": "nsynth",
    "nsynth:octave": "nspitch",
    "nsynth:pitch": "nspitch",
}
CORPORA = {"voxceleb1": "vc1"}
ROWS = (
    "cremad:emotion", "esc50:category", "gise51:category", "gtzan:genre", "nsynth:family", "surge:note",
    "voxceleb1:gender_nationality", "voxforge:language",
)  # fmt: skip
"""Labellings of Tables I and II. The tables name data sets; which labels of NSynth, Surge and VoxCeleb1 are meant is
our inference."""
GIVEN = ("vc1:class", *(f"{row.partition(':')[0]}:class" for row in ROWS))
"""The same, from published files."""
STATS_COLUMNS = (
    "store", "task", "categories", "neurons_per_category", "coverage_ratio", "selected", "activity_threshold",
    "aape_threshold", "probability_threshold", "percentile", "rule",
)  # fmt: skip
"""Of `stats_table`, those of the file that published notebooks look for."""
TABLE_COLUMNS = {"neurons_per_category": "neurons", "coverage_ratio": "coverage"}


def paper_rows(labellings: Iterable[str]) -> list[str]:
    """Those of the labellings "task:label" that are rows of Tables I and II; all of them if none is."""
    names = list(dict.fromkeys(labellings))
    return [name for name in names if name in ROWS or name in GIVEN] or names


def official_task(labelling: str) -> str:
    """The name of a labelling "task:label" in official file names, as "nspitch" for "nsynth:octave".

    What is not in the list keeps its task's name.
    """
    task = labelling.partition(":")[0]
    return TASKS.get(labelling, CORPORA.get(task, task))


def official_folder(labelling: str, training: str) -> str:
    """`{task}_analysis` for "ssl", `{task}_vit` for "sl". Raises ValueError for another training."""
    return f"{official_task(labelling)}_{_suffix(training)}"


def official_table(training: str) -> str:
    """Name of the table of statistics: `task_level_neuron_statistics_analysis.csv`, or `..._vit.csv` for "sl"."""
    return f"task_level_neuron_statistics_{_suffix(training)}.csv"


def official_figure(labelling: str, other: str | None = None) -> str:
    """Name of a heat map: `within_task-gtzan.pdf`, or `cross_task-surge-nspitch.pdf` against another labelling."""
    if other is None:
        return f"within_task-{official_task(labelling)}.pdf"
    return f"cross_task-{official_task(labelling)}-{official_task(other)}.pdf"


def _suffix(training: str) -> str:
    if training not in SUFFIXES:
        raise ValueError(f"training is {training!r}; expected one of {', '.join(SUFFIXES)}")
    return SUFFIXES[training]


def paper_table(stats: "pd.DataFrame") -> "pd.DataFrame":
    """Tables I and II in one: a row per labelling, two columns per store, and the average as the last row.

    stats: of `stats_table`. Columns task, and for each store in its order "STORE neurons" (mean number of
    class-specific neurons of a category) and "STORE coverage" (share of categories that have any); empty where a store
    lacks the labelling. The average of a store is over the labellings that it has.
    """
    import pandas as pd  # heavy, and not needed for the names

    own = stats[stats["task"] != "average"]
    stores, tasks = list(dict.fromkeys(own["store"])), list(dict.fromkeys(own["task"]))
    table = pd.DataFrame({"task": [*tasks, "average"]})
    for store in stores:
        rows = own[own["store"] == store].set_index("task")
        for column, title in TABLE_COLUMNS.items():
            values = rows[column].reindex(tasks)
            table[f"{store} {title}"] = [*values, values.mean()]
    return table
