"""Which label columns seem to hold lists, and which are text."""

import pandas as pd
import pytest

from otoscope.extract.audio.tag_lists import list_warnings

LISTS = [
    (["a,b", "a", "c"], "'a,b' .*'a' is another category"),
    (["cat", "rain; wind", "wind"], "'rain; wind' .*'wind' is another category"),
    (["x|y", "y|z", "z|x"], "'x|y' .*each of its parts is in another cell"),
    (["Bark,Dog", "Meow,Cat"], "'Bark,Dog' .*no space comes after the comma"),
    (["dog, rain", "dog, wind", "cat, rain", ""], "'dog, rain' .*each of its parts"),
    (["Domestic_animals,Dog", "x"], "'Domestic_animals,Dog'"),
]
TEXTS = [
    ["Bark, dog", "Meow, cat", "Music"],
    ["Inside, small room", "Inside, large room or hall", "Outside, rural or natural"],
    ["Male speech, man speaking", "Female speech, woman speaking"],
    ["1,5", "2,5", "2.0"],
    ["a", "b", ""],
    ["x|y", "p|q"],
    ["a,", ",b", ",,"],
]


@pytest.mark.parametrize(("cells", "message"), LISTS)
def test_lists_are_named_with_a_reason_and_a_remedy(cells: list[str], message: str) -> None:
    (warning,) = list_warnings(pd.DataFrame({"kind": cells * 3, "other": ["u", "v", "w"][:1] * len(cells) * 3}))
    assert warning.startswith("label column 'kind': ")
    pattern = message.replace("|", r"\|")
    assert pd.Series([warning]).str.contains(pattern, regex=True).all(), warning
    assert "make a column of each tag" in warning


@pytest.mark.parametrize("cells", TEXTS)
def test_text_with_commas_is_no_list(cells: list[str]) -> None:
    assert list_warnings(pd.DataFrame({"kind": cells * 2})) == []
