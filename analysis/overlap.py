"""How much the neurons of two categories have in common, within a task or across tasks.

Goal: the common neuron ratios behind the heat maps.
Conventions: membership is bool (layer, neuron, category); two memberships must be of the same encoder.
Contents: `common_neuron_ratio`.
"""

import xarray as xr


def common_neuron_ratio(member_a: xr.DataArray, member_b: xr.DataArray | None = None) -> xr.DataArray:
    """Jaccard index of the neurons of each two categories: (category, other_category) in [0, 1].

        |A and B| / |A or B|, NaN where both sets are empty

    member_a, member_b: bool (layer, neuron, category), for instance of two tasks; without the second, of the
    first with itself: symmetric, 1 on the diagonal. Lazy in, lazy out.
    Raises ValueError where layers and neurons differ.
    """
    a = member_a.reset_coords(drop=True)
    b = (member_a if member_b is None else member_b).reset_coords(drop=True)
    shapes = [{dim: m.sizes[dim] for dim in ("layer", "neuron")} for m in (a, b)]
    same = [all(dim not in m.indexes or m.indexes[dim].equals(a.indexes[dim]) for dim in shapes[0]) for m in (a, b)]
    if shapes[0] != shapes[1] or not all(same):
        raise ValueError(
            f"memberships over {shapes[0]} and {shapes[1]}; expected the same layers and neurons: "
            "only neurons of one encoder can be common"
        )
    # Counts stay far below 2^24, where float32 ceases to be exact, for any encoder of less than 16 million
    # neurons.
    a, b = a.astype("float32"), b.astype("float32").rename(category="other_category")
    common = xr.dot(a, b, dim=["layer", "neuron"]).astype("float64")
    either = a.sum(["layer", "neuron"]) + b.sum(["layer", "neuron"]) - common
    ratio: xr.DataArray = (common / either.where(either > 0)).transpose("category", "other_category")
    return ratio.rename("common_neuron_ratio").assign_attrs(long_name="common neuron ratio", units="1")
