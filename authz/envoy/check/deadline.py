"""When a call through Envoy ends with its token: what an answer tells Envoy, and the upstream, about that.

Pure. Envoy's router ends whatever it forwards when the time in ``x-envoy-upstream-stream-duration-ms`` is over: a call,
a stream in either direction, events, a WebSocket; it removes the header before the upstream sees it. A deadline in the
header of the caller's own protocol lets an upstream end a call half a second before, with a proper status. Envoy itself
does not read that one in an answer: it has read the caller's before it asks.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckResponse,
    HeaderValue,
    HeaderValueOption,
    OkHttpResponse,
)
from authz.http.forms import Form

DURATION = "x-envoy-upstream-stream-duration-ms"

RETRIES = ("x-envoy-retry-on", "x-envoy-retry-grpc-on")
"""Each try has the whole time again; Envoy obeys these from callers that it takes for internal."""

COURTESY = 0.5
"""Seconds that an upstream has to end a call with a status, before Envoy resets it."""

_OVERWRITE = HeaderValueOption.HEADER_APPEND_ACTION_OVERWRITE_IF_EXISTS_OR_ADD

# The most that eight digits can say in seconds, three years; in milliseconds it is a day.
_MOST = 99_999_999


_UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9, "": 1e-3}


class _Header(NamedTuple):
    """How a protocol writes deadlines.

    Attributes:
        name: of the header.
        value: what it looks like: a number, and a unit, which is empty for milliseconds.
        text: writes milliseconds.

    """

    name: str
    value: re.Pattern[str]
    text: Callable[[int], str]

    def seconds(self, text: str) -> float:
        """Return what a caller has written; infinite if it is not written as the protocol has it."""
        found = self.value.fullmatch(text)
        return math.inf if found is None else int(found[1]) * _UNITS[found[2]]


def _grpc_timeout(milliseconds: int) -> str:
    return f"{milliseconds}m" if milliseconds <= _MOST else f"{math.ceil(milliseconds / 1000)}S"


# gRPC over HTTP2, "Requests": at most eight digits, and a unit.
_GRPC = _Header("grpc-timeout", re.compile(r"([0-9]{1,8})([HMSmun])"), _grpc_timeout)
# Connect protocol, "Timeout": at most ten digits.
_CONNECT = _Header(
    "connect-timeout-ms", re.compile(r"([0-9]{1,10})()"), lambda milliseconds: str(min(milliseconds, 10**10 - 1))
)

_HEADERS = {
    Form.GRPC: _GRPC,
    Form.GRPC_WEB: _GRPC,
    Form.CONNECT_PROTO: _CONNECT,
    Form.CONNECT_JSON: _CONNECT,
}


def ending(http: AttributeContext.HttpRequest, form: Form, seconds: float) -> bytes:
    """Return what ends a call after ``seconds``, to be appended to a serialized answer that allows it.

    The caller's own deadline stays if it is shorter. gRPC without a proxy (gRFC A92), which ends its calls itself, gets
    nothing, because it refuses to set headers of gRPC.

    Args:
        http: the request as Envoy shows it.
        form: the protocol that its caller speaks.
        seconds: how long its token is still good.

    """
    if http.size < 0:
        # Only gRPC without a proxy says that it does not know the size.
        return b""
    tenths = tenths_of(seconds)
    header = _HEADERS.get(form)
    keeps_own = header is not None and _own(http, header) <= tenths / 10
    return _told(header, tenths, keeps_own)


def tenths_of(seconds: float) -> int:
    """Return for how many tenths of a second a call may go on."""
    return min(max(1, math.ceil(seconds * 10)), _MOST * 10)


def _own(http: AttributeContext.HttpRequest, header: _Header) -> float:
    """Return the caller's own deadline in seconds; infinite where there is none, or several, which servers may mix."""
    if http.HasField("header_map"):
        found = [h.raw_value.decode("latin-1") or h.value for h in http.header_map.headers if h.key == header.name]
    else:
        found = [http.headers[header.name]] if header.name in http.headers else []
    return header.seconds(found[0]) if len(found) == 1 else math.inf


# Rounded up to tenths of a second, so that most calls of busy callers find theirs here.
@functools.lru_cache(4096)
def _told(header: _Header | None, tenths: int, keeps_own: bool) -> bytes:  # noqa: FBT001 - of a cache
    courtesy = 0 if header is None else COURTESY
    headers = {DURATION: str(tenths * 100 + int(courtesy * 1000))}
    if header is not None and not keeps_own:
        headers[header.name] = header.text(tenths * 100)
    options = [
        HeaderValueOption(header=HeaderValue(key=key, value=value), append_action=_OVERWRITE)
        for key, value in headers.items()
    ]
    # Serialized messages may be concatenated: repeated fields of the second are added to those of the first.
    return CheckResponse(ok_response=OkHttpResponse(headers=options, headers_to_remove=RETRIES)).SerializeToString()
