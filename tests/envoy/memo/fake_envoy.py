"""An Envoy in memory: our script under the interpreter that Envoy has, and the filter ext_authz behind it."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from lupa.luajit21 import LuaError, LuaRuntime, lua_type

from authz.call.metadata import TrustedMetadata
from authz.envoy.memo.script import script
from authz.envoy.v3.external_auth_pb2 import (
    AttributeContext,
    CheckRequest,
    CheckResponse,
    HeaderMap,
    HeaderValue,
)

Headers = Sequence[tuple[str, str]]
Check = Callable[[bytes], bytes]
"""Answers a serialized ``CheckRequest``."""

_STUB = Path(__file__).with_name("stub.lua").read_text(encoding="utf-8")
CHECK = "envoy.filters.http.ext_authz"


class Call(NamedTuple):
    """A request of a caller."""

    headers: Headers
    path: str
    certificate: str | None = None
    verb: str = "POST"

    @property
    def question(self) -> bytes:
        """What ext_authz asks about it."""
        values = [HeaderValue(key=name, raw_value=value.encode("latin-1")) for name, value in self.headers]
        http = AttributeContext.HttpRequest(method=self.verb, path=self.path, header_map=HeaderMap(headers=values))
        asked = CheckRequest(attributes=AttributeContext(request=AttributeContext.Request(http=http)))
        if self.certificate is not None:
            asked.attributes.tls_session.SetInParent()
            asked.attributes.source.certificate = self.certificate
        return asked.SerializeToString()


class Passed(NamedTuple):
    """A request on its way to the upstream."""

    headers: list[tuple[str, str]]
    is_repeated: bool
    metadata: dict[str, Any]


def upstream_headers(call: Call, response: CheckResponse) -> list[tuple[str, str]]:
    """Return what ext_authz makes of the headers of a call that is allowed."""
    headers = list(call.headers)
    for option in response.ok_response.headers:
        headers = [each for each in headers if each[0] != option.header.key]
        headers.append((option.header.key, option.header.value))
    removed = set(response.ok_response.headers_to_remove)
    return [each for each in headers if each[0] not in removed]


class Machine:
    """One load of the script: a Lua machine with a memory of its own."""

    def __init__(self, source: str, boot_seconds: float | None) -> None:
        self._lua = LuaRuntime(unpack_returned_tuples=False, encoding="latin-1")
        self._lua.execute(_STUB)
        self.set_clock(boot_seconds)
        self._lua.execute(source)
        names = self._lua.globals()
        self._handle, self._request, self._response = (
            names.handle_of,
            names.envoy_on_request,
            names.envoy_on_response,
        )

    def set_clock(self, boot_seconds: float | None) -> None:
        """Set the clock of the machine, if it has one."""
        self._lua.globals().boot_seconds = boot_seconds

    def table(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._lua.table_from({name: self.table(each) for name, each in value.items()})
        if isinstance(value, list | tuple):
            return self._lua.table_from([self.table(each) for each in value])
        return value

    def break_function(self, name: str) -> None:
        """Have a function of Envoy's fail from now on."""
        self._lua.execute(f"broken = '{name}'")

    def on_request(self, headers: Any, metadata: Any, now: float, certificate: str | None) -> bool:
        """Run it; say whether it failed, which lets the request go on."""
        return self._run(self._request, headers, metadata, now, certificate)

    def on_response(self, headers: Any, metadata: Any, now: float) -> bool:
        return self._run(self._response, headers, metadata, now, None)

    def _run(self, function: Any, headers: Any, metadata: Any, now: float, certificate: str | None) -> bool:
        if function is None:
            return False
        try:
            function(self._handle(headers, metadata, now, certificate))
        except LuaError:
            return True
        return False


class Stream:
    """One request, from the script to its answer; it keeps the machine that it began with, as Envoy's streams do."""

    def __init__(self, machine: Machine, call: Call, now: float) -> None:
        self._machine, self.call, self.has_failed = machine, call, False
        named = [(":method", call.verb), (":path", call.path)]
        self._headers = machine.table([list(each) for each in (*named, *call.headers)])
        self._metadata = machine.table({})
        self.has_failed = machine.on_request(self._headers, self._metadata, now, call.certificate)
        self.response: CheckResponse | None = None

    @property
    def is_repeated(self) -> bool:
        memo = self._metadata["authz.memo"]
        return memo is not None and memo["decided"] is True

    def ask(self, check: Check) -> None:
        """Do what ext_authz does: nothing for a request that is marked."""
        if self.is_repeated:
            return
        self.response = CheckResponse.FromString(check(self.call.question))
        facts = MessageToDict(self.response.dynamic_metadata)
        if facts:
            self._metadata[CHECK] = self._machine.table(facts)

    def end(self, now: float) -> None:
        """Let the answer pass the script on its way back."""
        self.has_failed = self._machine.on_response(self._machine.table([]), self._metadata, now) or self.has_failed

    @property
    def passed(self) -> Passed | None:
        """Return what goes to the upstream, if anything does."""
        if self.is_repeated:
            pairs = [(each[1], each[2]) for each in self._headers.values() if each[1] not in (":method", ":path")]
            memo = {name: _plain(value) for name, value in self._metadata["authz.memo"].items()}
            return Passed(pairs, is_repeated=True, metadata=memo)
        if self.response is None or self.response.status.code:
            return None
        return Passed(upstream_headers(self.call, self.response), is_repeated=False, metadata={})


class FakeEnvoy:
    """A listener.

    Args:
        source: makes the script.
        has_clock: whether the script finds the clock of the machine, which nobody sets.

    """

    def __init__(self, source: Callable[[str], str] | None = None, *, has_clock: bool = True) -> None:
        self._boot_seconds = 1000.0 if has_clock else None
        self._source = source or (lambda generation: script(generation, TrustedMetadata(), remove_authorization=False))
        self.now = 1_000_000_000_000.0
        self.load("")

    def load(self, generation: str) -> None:
        """Take a new script; requests that have begun keep the one before."""
        self.machine = Machine(self._source(generation), self._boot_seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += 1000 * seconds
        if self._boot_seconds is not None:
            self._boot_seconds += seconds

    def set_clock(self, seconds: float) -> None:
        """Set Envoy's own clock forward, or back if ``seconds`` are negative."""
        self.now += 1000 * seconds

    def begin(self, call: Call) -> Stream:
        self.machine.set_clock(self._boot_seconds)
        return Stream(self.machine, call, self.now)

    def call(self, call: Call, check: Check) -> Stream:
        """Have a request go all its way."""
        stream = self.begin(call)
        stream.ask(check)
        stream.end(self.now)
        return stream


def _plain(value: Any) -> Any:
    if lua_type(value) != "table":
        return value
    return {name: _plain(each) for name, each in value.items()}


def without(headers: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [each for each in headers if each[0] not in names]
