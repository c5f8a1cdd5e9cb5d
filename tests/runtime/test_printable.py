"""Untrusted text can be read in a log and on a terminal, but has no effect there."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.runtime.text.printable import MAX_CHARACTERS, bounded, printable

texts = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x9b\u202e\u2028\u200b\ud800\n\r\\ \u2800\ufe0f")))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/a.B/C", "/a.B/C"),
        ("", ""),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\x7f", r"\x7f"),
        ("\x85\x9b31m", r"\x85\x9b31m"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u2066\u2069\u200e\u061c", r"\u2066\u2069\u200e\u061c"),
        ("a\u200bb\u200d\ufeff\u00ad", r"a\u200bb\u200d\ufeff\xad"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\ud800", r"\ud800"),
        ("\ue000\U000f0000\U0010fffd", r"\ue000\U000f0000\U0010fffd"),
        ("\u0378", r"\u0378"),
        ("a\u3164\u2800\ufe0f\U000e0101", r"a\u3164\u2800\ufe0f\U000e0101"),
        ("a\xa0b\u3000", r"a\xa0b\u3000"),
        ("\U000e0041", r"\U000e0041"),
        ("Müller 株式会社 Ωμέγα Привет नमस्ते 😀 ½", "Müller 株式会社 Ωμέγα Привет नमस्ते 😀 ½"),
        ("a\\x1b 'b' \"c\"", "a\\x1b 'b' \"c\""),
    ],
)
def test_what_would_not_be_seen_as_it_is_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(texts)
def test_any_text_becomes_one_visible_line(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in shown)
    assert printable(shown) == shown


@given(texts, st.integers(min_value=50, max_value=200))
def test_any_text_is_bounded_and_says_how_much_is_left_out(text: str, at_most: int) -> None:
    text = text * 10
    short = bounded(text, at_most)

    assert len(short) <= at_most
    assert bounded(short, at_most) == short
    if short != text:
        kept, _, mark = short.rpartition("[")
        assert text.startswith(kept)
        assert len(kept) + int(mark.removesuffix(" more characters]")) == len(text)


def test_three_megabytes_are_shown_in_a_kilobyte() -> None:
    shown = printable("/" + "\x1b" * 3_000_000)

    assert shown.endswith("\\x1b[2999017 more characters]")
    assert len(shown) < 4 * MAX_CHARACTERS
