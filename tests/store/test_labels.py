"""Laws of label columns: nothing is lost, and the order of categories does not depend on that of the clips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.store.labels import decode, encode, next_arrays

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
COLUMNS = st.lists(st.one_of(TEXT, st.integers(-30, 30).map(str), st.just("")), max_size=30)


@given(COLUMNS)
def test_what_is_encoded_comes_back(column: list[str]) -> None:
    codes, names = encode(column)
    assert codes.dtype == np.int32
    assert decode(codes, names).tolist() == column
    assert len(set(names)) == len(names)
    assert "" not in names
    assert all((code == -1) == (text == "") for code, text in zip(codes, column, strict=True))


@given(COLUMNS, st.randoms(use_true_random=False))
def test_categories_do_not_depend_on_the_order_of_clips(column: list[str], random: object) -> None:
    shuffled = sorted(column, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert encode(shuffled)[1] == encode(column)[1]


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (["10", "9", "", "-1", "9"], ["-1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["01", "1", "0"], ["0", "01", "1"]),
        (["1.5", "10"], ["1.5", "10"]),
        (["über", "a, b", "z", "Ω"], ["a, b", "z", "über", "Ω"]),
        (["²", "3"], ["3", "²"]),
        (["", ""], []),
        ([], []),
    ],
)
def test_numbers_by_size_and_words_by_code_point(column: list[str], names: list[str]) -> None:
    assert encode(column)[1] == names


def test_a_column_as_the_array_that_numpy_or_pandas_gives() -> None:
    for dtype in (np.dtypes.StringDType(), object):
        codes, names = encode(np.array(["b", "a", ""], dtype=dtype))
        assert (codes.tolist(), names) == ([1, 0, -1], ["a", "b"])
    codes, names = encode(np.array(["b", np.nan, "", None], dtype=object))
    assert (codes.tolist(), names) == ([0, -1, -1, -1], ["b"])


def test_generations_have_names_of_their_own() -> None:
    assert next_arrays(["x", "x.2"], {}) == {"x": "label_x", "x.2": "label_x.2"}
    assert next_arrays(["x"], {"x": "label_x"}) == {"x": "label_x.2"}
    assert next_arrays(["x"], {"x": "label_x", "x.2": "label_x.2"}) == {"x": "label_x.3"}
    both = {"x": "label_x.2", "x.2": "label_x.2.2"}
    assert next_arrays(["x", "x.2"], both) == {"x": "label_x.3", "x.2": "label_x.2.3"}
    assert next_arrays(["x.2"], {"x": "label_x.2"}) == {"x.2": "label_x.2.2"}


def test_categories_in_their_order() -> None:
    for column, order in (
        (["b", "", "a", "B", "b"], ["B", "a", "b"]),
        (["10", "9", "-1", "", "9"], ["-1", "9", "10"]),
        (["1", "01", "0"], ["0", "01", "1"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["1.5", "10", "9"], ["1.5", "10", "9"]),
        (["²", "3"], ["3", "²"]),
        (["é", "z", "a"], ["a", "z", "é"]),
        ([""], []),
    ):
        assert encode(column)[1] == order
