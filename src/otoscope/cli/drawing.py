"""Figures as commands draw and write them."""

from typing import Any

from .printing import echo


def figure_of_result(kind: str, path: str, caption: bool) -> Any:
    """A figure of what another command wrote."""
    if kind == "grounding":
        from ..analysis.crossed.table import read_grounding
        from ..analysis.figures.captions import grounding_caption
        from ..analysis.figures.grounding import grounding_figure

        table = read_grounding(path)
        return grounding_figure(table, grounding_caption(table) if caption else "")
    if kind == "swap":
        from ..ablate.swap.result import pair_table, read_swaps
        from ..analysis.figures.captions import swaps_caption
        from ..analysis.figures.swaps import swaps_figure

        swaps = read_swaps(path)
        return swaps_figure(
            (pair_table(swaps, "E_A"), pair_table(swaps, "E_T")), swaps_caption(swaps) if caption else ""
        )
    if kind != "ablation":
        from ..analysis.figures.of_tables import figure_of_table

        return figure_of_table(kind, path, caption=caption)
    from ..ablate.result import read_result
    from ..analysis.figures.ablation import ablation_figure
    from ..analysis.figures.captions import ablation_caption

    result = read_result(path)
    return ablation_figure(result, caption=ablation_caption(result) if caption else "")


def put_figure(drawn: Any, path: str) -> None:
    """Write a figure, print where, and on standard error what it cannot say by itself."""
    from ..analysis.figures.save import save_figure

    note = save_figure(drawn, path)
    echo(path)
    if note:
        echo(note, err=True)
