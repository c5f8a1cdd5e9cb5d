import base64
import contextlib
import itertools
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.token.encoding import EncodingError, base64url_decode, json_object

ALPHABET = string.ascii_letters + string.digits + "-_"


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decodes(text):
    try:
        base64url_decode(text)
    except EncodingError:
        return False
    return True


@given(st.binary(max_size=64))
def test_what_base64url_encodes_is_decoded(data):
    assert base64url_decode(encode(data)) == data


@pytest.mark.parametrize(("size", "values"), [(1, 0), (2, 256)])
def test_each_short_value_has_one_spelling(size, values):
    accepted = [text for text in map("".join, itertools.product(ALPHABET, repeat=size)) if decodes(text)]

    assert len(accepted) == values
    assert all(encode(base64url_decode(text)) == text for text in accepted)


@given(st.text(ALPHABET + "=+/ .\n", max_size=12))
def test_whatever_is_decoded_encodes_to_the_same_text(text):
    if decodes(text):
        assert encode(base64url_decode(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("YQ==", id="padding"),
        pytest.param("YQ=", id="half-padding"),
        pytest.param("++//", id="standard-alphabet"),
        pytest.param("YW Jj", id="blank"),
        pytest.param("YWJj\n", id="newline-at-the-end"),
        pytest.param("\nYWJj", id="newline-at-the-start"),
        pytest.param("YR", id="unused-bits-of-two"),
        pytest.param("YWJ", id="unused-bits-of-three"),
        pytest.param("Y", id="impossible-length"),
        pytest.param("\uff39\uff31", id="full-width"),
        pytest.param("\ud800AAA", id="surrogate"),
        pytest.param("AA\x00A", id="nul"),
    ],
)
def test_other_spellings_are_refused(text):
    with pytest.raises(EncodingError):
        base64url_decode(text)


def test_a_plain_object_is_read():
    text = '{"iss": "é", "aud": ["a", "b"], "exp": 1.5, "nested": {"deep": null, "no": false}}'

    assert json_object(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}x", id="trailing-text"),
        pytest.param(b"{}{}", id="two-objects"),
        pytest.param(b"{'a': 1}", id="single-quotes"),
        pytest.param(b'{"a": 1,}', id="trailing-comma"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="utf-16"),
        pytest.param(b'{"a": "\xff"}', id="not-utf-8"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', id="surrogate-as-utf-8"),
        pytest.param(b'{"a": "\\ud800"}', id="surrogate"),
        pytest.param(b'{"\\udc00": 1}', id="surrogate-in-a-name"),
        pytest.param(b'{"a": [{"b": "\\ud800x"}]}', id="surrogate-nested"),
        pytest.param(b'{"a": "\n"}', id="raw-newline"),
        pytest.param(b'{"a": 1, "a": 1}', id="name-twice"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', id="name-twice-escaped"),
        pytest.param(b'{"x": [{"y": {"a": 1, "a": 2}}]}', id="name-twice-nested"),
        pytest.param(b'{"a": NaN}', id="nan"),
        pytest.param(b'{"a": Infinity}', id="infinity"),
        pytest.param(b'{"a": -Infinity}', id="minus-infinity"),
        pytest.param(b'{"a": 1e999}', id="float-out-of-range"),
        pytest.param(b'{"a": -1e999}', id="float-out-of-range-below"),
        pytest.param(b'{"a": ' + b"9" * 21 + b"}", id="integer-of-21-digits"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="integer-of-5000-digits"),
        pytest.param(b'{"a": 01}', id="leading-zero"),
        pytest.param('{"a": \uff11}'.encode(), id="full-width-digit"),
        pytest.param(b'{"a": ' + b"[" * 256 + b"]" * 256 + b"}", id="257-containers"),
        pytest.param(b'{"a":' * 100_000, id="deep-and-unclosed"),
        pytest.param(b"[" * 100_000, id="deep-arrays"),
    ],
)
def test_json_that_readers_disagree_about_is_refused(data):
    with pytest.raises(EncodingError):
        json_object(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        pytest.param(b'{"a": ' + b"9" * 20 + b"}", 99999999999999999999, id="integer-of-20-digits"),
        pytest.param(b'{"a": 1e308}', 1e308, id="large-float"),
        pytest.param(b'{"a": "\\ud83d\\ude00"}', "\U0001f600", id="surrogate-pair"),
        pytest.param(b'{"a": "\\u0000"}', "\0", id="escaped-nul"),
        pytest.param(b'{"a": {"a": {"a": 1}}}', {"a": {"a": 1}}, id="same-name-at-other-depths"),
    ],
)
def test_json_at_the_edge_is_read(data, value):
    assert json_object(data)["a"] == value


def test_the_number_of_containers_can_be_chosen():
    data = b'{"a": [[], []]}'

    assert json_object(data, max_containers=4) == {"a": [[], []]}
    with pytest.raises(EncodingError):
        json_object(data, max_containers=3)


def test_a_parser_that_runs_out_of_stack_refuses():
    depth = 200_000
    data = b'{"a": ' + b"[" * depth + b"]" * depth + b"}"

    with pytest.raises(EncodingError):
        json_object(data, max_containers=depth + 1)


def test_errors_do_not_quote_what_they_refuse():
    with pytest.raises(EncodingError) as caught:
        json_object(b'{"secret": nope}')

    assert "secret" not in str(caught.value)
    with pytest.raises(EncodingError) as caught:
        base64url_decode("secret!")
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_object_or_refused(data):
    with contextlib.suppress(EncodingError):
        assert isinstance(json_object(data), dict)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    # No half of a surrogate pair: those are refused.
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(string.printable, max_size=8), JSON, max_size=4))
def test_any_honest_object_is_read_as_json_reads_it(value):
    assert json_object(json.dumps(value).encode()) == value
