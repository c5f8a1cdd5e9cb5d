"""A file that is read in pieces says what it says as a whole, and has the same mistakes."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.errors import ConfigError
from authz.runtime.text import pieces
from authz.runtime.text.document import Fault, read, unique

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def _whole(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"), object_pairs_hook=unique)


@given(
    data=st.dictionaries(st.text(max_size=4), _VALUES, max_size=5),
    indent=st.sampled_from([None, 1, "\t"]),
    escapes=st.sampled_from(["only what must be", "all but ASCII"]),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
    size=st.sampled_from([1, 2, 5, 64]),
)
def test_document_is_the_same_in_pieces_of_any_size(
    data: dict[str, Any], indent: str | int | None, escapes: str, mark: bytes, size: int
) -> None:
    content = mark + json.dumps(data, indent=indent, ensure_ascii=escapes == "all but ASCII").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        try:
            found = pieces.json_of(content, unique)
        except pieces.Doubt:
            # Then it is read as a whole.
            return

    assert repr(found) == repr(_whole(content))


@given(
    data=st.dictionaries(st.sampled_from("abc"), _VALUES, min_size=1, max_size=3),
    places=st.lists(st.integers(0, 10_000), min_size=1, max_size=3),
    insert=st.sampled_from(["", "{", "}", "[", "]", ",", ":", '"', "\\", "1", "e", "-", "\x00", "\ufeff", " ", "nul"]),
    size=st.sampled_from([1, 3, 64]),
)
def test_nothing_is_read_in_pieces_that_is_refused_as_a_whole(
    data: dict[str, Any], places: list[int], insert: str, size: int
) -> None:
    text = json.dumps(data)
    for place in places:
        at = place % len(text)
        text = text[:at] + insert + text[at + (not insert) :] or " "
    content = text.encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        try:
            found = pieces.json_of(content, unique)
        except (pieces.Doubt, Fault):
            return

    assert repr(found) == repr(_whole(content))


@pytest.mark.parametrize("size", range(1, 12))
def test_numbers_and_texts_that_go_on_in_the_next_piece_are_read_without_doubt(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(pieces, "PIECE", size)
    data = {"a": 1234567, "b": [12, "345", []], "c": {"d": 678, "e": {"f": "\u20ac"}}, "g": None, "h": {}}

    assert pieces.json_of(json.dumps(data, indent=1).encode(), unique) == data


@pytest.mark.parametrize(
    "text",
    ['{"a": 1] "b": 2}', '{"a": [1}', '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 2}}', '{"a": 1} {}', '{"a": 1,}', "[1]"],
)
def test_what_is_no_mapping_or_wrong_is_left_to_the_reader_of_the_whole(text: str) -> None:
    with pytest.raises((pieces.Doubt, Fault)):
        pieces.json_of(text.encode(), unique)


@pytest.mark.parametrize("name", ["policy.json", "policy.yaml"])
def test_a_byte_that_is_no_text_is_refused_wherever_it_stands(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    blanks = b" " * (pieces.PIECE - 10)
    for content in (b'{"a": "\xff"}', blanks + b'{"a": "' + b"x" * 20 + b'\xff"}', b'{"a": 1}\xe2\x82', b"\xff\xfe{"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="is not UTF-8 text"):
            read(path)


@pytest.mark.parametrize("name", ["policy.json", "policy.yaml"])
def test_text_that_is_cut_within_a_character_is_put_together(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = {"a": {"b": "x" + "\N{EURO SIGN}" * pieces.PIECE}, "c": ["\N{GRINNING FACE}" * 1_000] * 40}
    path.write_bytes(codecs.BOM_UTF8 + json.dumps(data, ensure_ascii=False).encode())

    assert read(path).data == data


@pytest.mark.parametrize(("text", "line"), [('\n{"a": 1,\n\t}', 3), ('{\n\t"a": 1,\n\t"b": nul\n}', 3)])
def test_a_mistake_in_json_has_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match=rf"policy\.json:{line}: not JSON"):
        read(path)


def test_parts_of_json_with_tabs_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{\n\t"a": {\n\t\t"b":\t1},\n\t"c": [1,\n\t2]\n}')

    assert read(path).line("a", "b") == 3
    assert read(path).line("c", 1) == 5
