"""Partners in a crossed corpus: closed under exchange, alike in all but what is swapped."""

import numpy as np
import pytest
import xarray as xr

from otoscope.ablate.swap.pairs import aligned_pairs, check_sides, swaps_of
from otoscope.analysis.crossed.layout import crossed_layout

SIZES = (3, 4, 3, 2)


def corpus(sizes=SIZES, seed=0):
    """Columns of a crossed corpus in random order, whose names say nothing of the numbers of replicates."""
    rng = np.random.default_rng(seed)
    K, J, L, M = sizes
    names = {"sound": rng.permutation(K * J).reshape(K, J), "wording": rng.permutation(L * M).reshape(L, M)}
    a, j, t, m = np.indices(sizes).reshape(4, -1)[:, rng.permutation(K * J * L * M)]
    columns = {
        "audio_class": [f"c{k}" for k in a], "text_class": [f"c{k}" for k in t],
        "audio": [f"s{n}" for n in names["sound"][a, j]], "wording": [f"w{n}" for n in names["wording"][t, m]],
        "replicate": [f"{x + 1}-{y + 1}" for x, y in zip(j, m, strict=True)],
    }  # fmt: skip
    return {name: np.array(values, object) for name, values in columns.items()}


def swaps(columns, extracted=None):
    arrays = {name: xr.DataArray(values, dims="clip") for name, values in columns.items()}
    layout = crossed_layout(**arrays, extracted=None if extracted is None else xr.DataArray(extracted, dims="clip"))
    pairs, notes = aligned_pairs(layout, columns["replicate"])
    return swaps_of(pairs), notes


def test_a_partner_differs_in_what_is_swapped_alone_and_has_its_clip_as_partner():
    columns = corpus()
    found, notes = swaps(columns)
    n = int(np.prod(SIZES))
    assert len(found.clip) == n * (3 - 1 + 3 - 1)
    assert notes == ()
    every = {*zip(found.modality.tolist(), found.clip.tolist(), found.donor.tolist(), strict=True)}
    assert len(every) == len(found.clip)
    for modality, clip, donor in every:
        swapped, held, name = [("audio_class", "text_class", "wording"), ("text_class", "audio_class", "audio")][
            modality
        ]
        assert columns[swapped][clip] != columns[swapped][donor]
        assert [columns[x][clip] for x in (held, name, "replicate")] == [
            columns[x][donor] for x in (held, name, "replicate")
        ]
        assert (modality, donor, clip) in every
    assert (found.clip[found.reverse] == found.donor).all()
    assert (found.reverse[found.reverse] == np.arange(len(found.clip))).all()
    assert (np.diff(found.clip) >= 0).all()  # a piece of swaps is of few clips


def test_the_table_of_a_modality_has_each_swap_in_its_place():
    columns = corpus()
    found, _ = swaps(columns)
    values = np.arange(len(found.clip), dtype=float)
    for modality, (swapped, held) in enumerate([("audio_class", "text_class"), ("text_class", "audio_class")]):
        table = found.table(values, modality)
        assert np.isnan(table[np.arange(3), np.arange(3)]).all()
        for (c, d, number, g, m), value in np.ndenumerate(table):
            if c == d:
                continue
            clip, donor = found.clip[int(value)], found.donor[int(value)]
            assert (columns[swapped][clip], columns[swapped][donor]) == (f"c{c}", f"c{d}")
            assert columns[held][clip] == f"c{g}"
            same = table[:, :, number, g, m][~np.eye(3, dtype=bool)].astype(int)
            assert len({columns["replicate"][k] for k in found.clip[same]}) == 1


def test_what_has_lost_its_partner_is_left_out():
    columns = corpus((3, 4, 3, 4))
    bad = (columns["audio"] == columns["audio"][0]) & (columns["wording"] == columns["wording"][0])
    found, notes = swaps(columns, extracted=~bad)
    assert set(columns["replicate"][found.clip]) <= set(columns["replicate"])
    for clip, donor in zip(found.clip, found.donor, strict=True):
        assert columns["replicate"][clip] == columns["replicate"][donor]
    sound = columns["audio"][0]
    assert sound not in columns["audio"][found.clip]
    assert found.pairs.shape[1] in (3, 4)
    assert all("left out" in note for note in notes)


def test_replicates_that_match_nothing_are_refused():
    columns = corpus()
    columns["replicate"] = np.array([f"{i}" for i in range(len(columns["audio"]))], object)
    with pytest.raises(ValueError, match="otoscope corpus cross"):
        swaps(columns)
    columns["replicate"] = np.array(["1"] * len(columns["audio"]), object)
    with pytest.raises(ValueError, match=r"do not say which clips are partners|have a partner"):
        swaps(columns)


def test_categories_of_one_side_are_named():
    columns = corpus()
    columns["text_class"] = np.where(columns["text_class"] == "c2", "other", columns["text_class"])
    layout = crossed_layout(*(xr.DataArray(values, dims="clip") for values in columns.values()))
    with pytest.raises(ValueError, match="'c2' is one of sounds alone; expected the same categories"):
        check_sides(layout)
