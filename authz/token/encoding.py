"""The two encodings of a token, base64url and JSON, each read in one way only.

Where two parsers disagree about one text, forged claims can pass a verifier (CVE-2022-39227),
so whatever a lenient parser would let pass is refused here.
"""

import binascii
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

_MAX_DIGITS = 20
_JSON_BLANKS = b" \t\n\r"

# To the standard alphabet; characters that are not base64url become ones that are not base64.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")

# RFC 4648 section 3.5: where the last group is not full, its unused bits must be zero.
_LAST_CHARACTERS = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}


class EncodingError(ValueError):
    """The text is not valid; the message never quotes it."""


def base64url_decode(text: str) -> bytes:
    """Decode unpadded base64url (RFC 7515 section 2); each value has exactly one accepted spelling.

    Raises:
        EncodingError: a foreign character, padding, an impossible length, or unused bits that are not zero.

    """
    rest = len(text) % 4
    try:
        data = text.encode("ascii")
        if rest and data[-1] not in _LAST_CHARACTERS[rest]:
            raise EncodingError("base64url with unused bits that are not zero")
        return binascii.a2b_base64(data.translate(_TO_STANDARD) + b"==="[: -rest % 4], strict_mode=True)
    except (ValueError, KeyError) as error:
        raise EncodingError("not canonical base64url") from error


def json_object(data: bytes, *, max_containers: int = 256) -> dict[str, Any]:
    """Parse ``data`` as one JSON object (RFC 8259), strictly.

    Args:
        data: UTF-8 text without a byte order mark.
        max_containers: how many objects and arrays there may be; bounds the depth before any parser recurses.

    Raises:
        EncodingError: not UTF-8, not an object, a name given twice (RFC 7519 section 4), NaN or infinity,
            an integer of more than 20 digits, an unpaired surrogate, or too many containers.

    """
    if data.count(b"{") + data.count(b"[") > max_containers:
        raise EncodingError("JSON with too many containers")
    try:
        # The reader's options carry the rules: see the functions below.
        text = data.strip(_JSON_BLANKS).decode("utf-8")
        value, end = _scan(text, 0)
        if end != len(text):
            raise EncodingError("JSON and something after it")
        if b"\\u" in data:
            # Escapes may hold half a character, which no UTF-8 text can.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, StopIteration, RecursionError) as error:
        # StopIteration is how the scanner says that no value begins where one should.
        # The stack may be deep already, so the bound above does not rule out a RecursionError.
        raise EncodingError("not strict JSON") from error
    if not isinstance(value, dict):
        raise EncodingError("JSON, but not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise EncodingError("a name is given twice")
    return value


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise EncodingError("an integer of too many digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise EncodingError("a number out of range")
    return value


def _no_constant(_name: str) -> NoReturn:
    raise EncodingError("NaN and infinity are not JSON")


# Without JSONDecoder's own wrapping, which looks for blanks and puts places into messages.
_DECODER: Any = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_no_constant
)
_scan: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once
