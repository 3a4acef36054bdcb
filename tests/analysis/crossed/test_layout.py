"""The layout of a crossed corpus: found in any order of the clips, kept balanced, and refused where it is none."""

import re

import numpy as np
import pytest
import xarray as xr

from otoscope.analysis import crossed_layout

from ...support.crossed import columns_of

SIZES = (3, 4, 2, 3)
NAMES = ("audio_class", "text_class", "audio", "wording")


def made(sizes=SIZES, order=None, failed=(), **changes):
    """Arguments of `crossed_layout`; failed: pairs in the order (a, j, t, m)."""
    columns = {name: np.array(values, object) for name, values in columns_of(sizes).items()} | changes
    n = len(columns["audio"])
    order = np.arange(n) if order is None else order
    arrays = {name: xr.DataArray(values[order], dims="clip") for name, values in columns.items()}
    return {**arrays, "extracted": xr.DataArray(~np.isin(order, failed), dims="clip")}


def pair(*at, sizes=SIZES):
    return int(np.ravel_multi_index(at, sizes))


def test_pairs_are_where_their_columns_say_in_any_order_of_the_clips():
    order = np.random.default_rng(0).permutation(72)
    layout = crossed_layout(**made(order=order))
    assert layout.sizes == {"K": 3, "J": 4, "L": 2, "M": 3}
    np.testing.assert_array_equal(order[layout.pairs], np.arange(72).reshape(SIZES))
    assert layout.audio_classes == ("A0", "A1", "A2")
    assert layout.text_classes == ("T0", "T1")
    assert layout.sounds[1] == tuple(f"sound 1.{j}" for j in range(4))
    assert layout.wordings == (("w0", "w1", "w2"),) * 2
    assert layout.notes == ()


def test_clips_without_a_class_have_no_part_in_it():
    columns = columns_of(SIZES)
    silent = {
        name: np.array([*values, "" if name == "audio_class" else "x"], object) for name, values in columns.items()
    }
    assert crossed_layout(**made(**silent)).sizes == {"K": 3, "J": 4, "L": 2, "M": 3}


@pytest.mark.parametrize(
    ("failed", "sizes", "note"),
    [
        ([pair(1, 2, t, m) for t in range(2) for m in range(3)], "3323", 
         r"6 of 72 pairs failed: 18 .* of 3 sounds \('sound 0.2', 'sound 1.2', 'sound 2.2'\)"),
        ([pair(1, 2, 1, 0)], "3323", "1 of 72 pairs failed: 18 are left out"),
        ([pair(a, j, 1, 2) for a in range(3) for j in range(4)], "3422",
         r"of 2 wordings \('w2' of 'T0', 'w2' of 'T1'\)"),
        ([pair(0, 0, 0, 0), pair(2, 0, 1, 1)], "3323", "2 of 72 pairs failed: 18 are left out .* of 3 sounds"),
        ([pair(0, 0, t, m) for t in (0, 1) for m in range(3)] + [pair(0, 1, 0, 0)], "3223",
         "36 are .* of 6 sounds .*, ..."),
    ],
)  # fmt: skip
def test_a_failed_pair_takes_its_row_along_and_what_matches_it(failed, sizes, note):
    layout = crossed_layout(**made(failed=failed))
    assert "".join(map(str, layout.sizes.values())) == sizes
    assert not set(failed) & set(layout.pairs.ravel())
    assert len({frozenset(name[-1] for name in of) for of in layout.sounds}) == 1  # replicates still match
    assert re.search(note, layout.notes[0])


def test_without_replicates_the_last_sounds_make_room():
    arguments = made(failed=[pair(1, 0, 0, 0)])
    del arguments["replicate"]
    layout = crossed_layout(**arguments)
    assert layout.sounds[0] == ("sound 0.0", "sound 0.1", "sound 0.2")
    assert layout.sounds[1] == ("sound 1.1", "sound 1.2", "sound 1.3")


def test_of_two_sounds_none_can_go_so_a_wording_does():
    layout = crossed_layout(**made(sizes=(2, 2, 2, 4), failed=[0]))
    assert layout.sizes == {"K": 2, "J": 2, "L": 2, "M": 3}


def twice():
    columns = columns_of(SIZES)
    return {name: np.array([*values, values[5]], object) for name, values in columns.items()}


def without(gone):
    return {name: np.delete(np.array(values, object), gone) for name, values in columns_of(SIZES).items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (made(**without([5])),
         r"1 of 72 pairs are not there, as sound 'sound 0.0' with wording 'w2' of 'T1'; expected"),
        (made(**without(range(6))), r"audio class 'A.' has 4 sounds, 'A0' 3; expected as many of each"),
        (made(**without([pair(a, j, 1, 2) for a in range(3) for j in range(4)])),
         "text class 'T0' has 3 wordings, 'T1' 2"),
        (made(**twice()),
         r"sound 'sound 0.0' is there more than once with wording 'w2' of 'T1'; expected every pair once"),
        (made(audio=np.array(["s"] * 72, object)), "sound 's' is of audio class 'A0' and of 'A1'; expected one"),
        (made(sizes=(1, 4, 2, 3)), "found 1 audio class; expected at least 2"),
        (made(sizes=(3, 1, 2, 3)), "found 1 sound of an audio class; expected at least 2: more sounds"),
        (made(sizes=(3, 4, 1, 3)), "found 1 text class; expected at least 2"),
        (made(sizes=(3, 4, 2, 1)), "found 1 wording of a text class; expected at least 2: more wordings"),
        (made(sizes=(2, 2, 2, 2), failed=[0]),
         "found 1 sound of an audio class after 1 failed pairs; expected .*status --fail"),
        (made(failed=range(72)), "found 0 "),
        (made(audio_class=np.array([""] * 72, object)), "no clip has an audio class, .* expected every sound"),
    ],
)  # fmt: skip
def test_what_is_not_crossed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        crossed_layout(**arguments)
    assert "\n" not in str(error.value)
