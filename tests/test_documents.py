"""Documents of others: what is read, and what is refused before it takes memory or time."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.documents import MAX_DEPTH, parse_json, parse_yaml, read_document
from otoscope.messages import clean, printable, visible

from .support.hostile_files import YAML
from .support.hostile_stores import TEXTS

NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
DANGEROUS = "\x00\x07\x1b\x7f\x9b\r\u200b\u202e\u2028\u2066\ufeff\U000e0041\ud800"


@given(VALUES)
def test_what_python_writes_is_read(value: object) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), finite=True) == value


def test_depth_is_bounded_exactly() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"1" + b"]" * (MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        parse_yaml(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "name", ["empty", "latin", "mark", "utf16", "lists", "digits", "nan", "overflow", "twice", "many"]
)
def test_what_is_not_json_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(TEXTS[name], finite=True)


def test_plain_yaml_is_read_and_aliases_are_not() -> None:
    assert parse_yaml(b"int_gain: 0.5\nint_neurons: [[0, 3]]\nname: m2d\n") == {
        "int_gain": 0.5, "int_neurons": [[0, 3]], "name": "m2d",
    }  # fmt: skip
    for name in ("laughs", "alias", "itself", "python", "tag"):
        data = YAML[name]
        with pytest.raises(ValueError, match="an alias, an anchor or a tag"):
            parse_yaml(data() if callable(data) else data)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_document(tmp_path / "f", 5) == b"12345"
    with pytest.raises(ValueError, match="it has 5 bytes; expected at most 4"):
        read_document(tmp_path / "f", 4)
    with pytest.raises(ValueError, match="not a regular file"):
        read_document("/dev/zero")
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "g")


@pytest.mark.parametrize("sign", [*DANGEROUS])
def test_control_characters_are_escaped_as_in_json(sign: str) -> None:
    for show in (clean, printable, visible):
        assert sign not in show(f"a{sign}b")
    text = json.dumps({"name": f"a{sign}b\n"}, ensure_ascii=False, indent=2)
    assert json.loads(printable(text)) == {"name": f"a{sign}b\n"}


def test_urls_lose_their_secrets_however_many_there_are() -> None:
    assert clean("no http://me:secret@h/x?key=1 (s3://b/k#f)") == "no http://h/x (s3://b/k)"
    assert clean("://" * 200_000) == "://" * 200_000  # hours, were each looked through to the end


def test_what_people_write_stays() -> None:
    text = "naïve 日本語 हिन्दी क्\u200dष 👩\u200d🔬 می\u200cخواهم\n\tx"
    assert printable(text) == text
    assert visible("a\n\tb") == r"a\n\tb"
