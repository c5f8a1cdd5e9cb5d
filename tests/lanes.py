"""What a test needs to run: nothing, a server in this process, a process of its own, or a real Envoy.

That is found out from what the test, its fixtures and its parameters lead to, by way of the code of ``tests``.
"""

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

LANES = ("unit", "server", "process", "envoy")
"""The markers, from the lightest to the heaviest."""

LEADS_TO: Mapping[str, frozenset[str]] = {
    "server": frozenset(
        {
            "asyncio.streams.start_server",
            "asyncio.streams.start_unix_server",
            "authz.decisions.audit.serve_audit",
            "authz.demo.issuer.server.IssuerServer",
            "authz.server.forward_auth.listener.HttpListener",
            "authz.server.operations.web.serving",
            "authz.server.serving.server.serve",
            "authz.server.workos.webhooks.receiving",
            "authz.testing.running.running_issuer",
            "grpc.aio._server.server",
            "grpc.server",
            "http.server.HTTPServer",
            "http.server.ThreadingHTTPServer",
            "socket.create_server",
            "socket.socket",
            "uvicorn.server.Server",
            "waitress.server.create_server",
            "werkzeug.serving.make_server",
            "wsgiref.simple_server.make_server",
        }
    ),
    "process": frozenset(
        {
            "asyncio.subprocess.create_subprocess_exec",
            "authz.demo.processes.Process",
            "authz.demo.store.Store",
            "authz.server.workers.child.Child",
            "authz.server.workers.supervisor.Supervisor",
            "benchmarks.peers.commands.started",
            "benchmarks.peers.comparison.measure",
            "benchmarks.peers.golang.built",
            "playwright.sync_api.sync_playwright",
            "posix.fork",
            "pty.fork",
            "subprocess.Popen",
            "subprocess.check_output",
            "subprocess.run",
            "tests.store.engines.Engine",
        }
    ),
    "envoy": frozenset({"authz.demo.envoy_binary.envoy_path", "authz.demo.processes.Envoy", "authz.demo.stack.Stack"}),
}
"""Whatever starts a server, a process or Envoy."""

_ROOMS = {"tests/e2e/": "envoy"}
"""Where every test needs the same, however it comes by it."""

_FORBIDDEN = {
    "unit": ("socket.bind", "subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"),
    "server": ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"),
}
"""What the interpreter tells its audit hooks, and no test of a lane may lead to."""


def lane_of(item: pytest.Function) -> str:
    """Return the lane of a test that has no marker of one."""
    for room, lane in _ROOMS.items():
        if item.nodeid.startswith(room):
            return lane
    fixtures = [found[-1].func for found in item._fixtureinfo.name2fixturedefs.values()]  # noqa: SLF001 - no other way
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    reached = frozenset().union(*map(_reached, [item.function, *fixtures, *parameters]))
    return max((lane for lane in LANES if LEADS_TO.get(lane, frozenset()) & reached), key=LANES.index, default="unit")


class Guard:
    """Fails a test that does what its lane does not allow: an audit hook."""

    def __init__(self) -> None:
        self._lane = ""

    def watch(self, item: pytest.Item | None) -> None:
        """Guard this test from now on, or none."""
        self._lane = "" if item is None else next(filter(item.get_closest_marker, LANES), "")

    def __call__(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN.get(self._lane, ()):
            pytest.fail(f"a test with the marker {self._lane} must not lead to {event}: see tests/lanes.py")


_known: dict[int, tuple[Any, frozenset[str]]] = {}


def _reached(start: Any) -> frozenset[str]:
    """Return the dotted names of all that the code of ``start`` leads to."""
    if id(start) not in _known:
        # Kept with it, so that no other object has its number.
        _known[id(start)] = (start, frozenset(_walk(start)))
    return _known[id(start)][1]


def _walk(start: Any) -> Iterator[str]:
    seen: dict[int, Any] = {}
    waiting = [start]
    while waiting:
        one = waiting.pop()
        one = inspect.unwrap(one) if callable(one) else one
        if id(one) not in seen:
            seen[id(one)] = one
            yield f"{getattr(one, '__module__', None)}.{getattr(one, '__qualname__', None)}"
            waiting.extend(_next(one))


def _next(one: Any) -> Iterator[Any]:
    if isinstance(one, tuple | list):
        yield from one
    elif isinstance(one, dict):
        yield from one.values()
    elif not str(getattr(one, "__module__", "")).startswith("tests."):
        return
    elif isinstance(one, types.FunctionType):
        yield from _of_code(one.__code__, one.__globals__)
        yield from (cell.cell_contents for cell in one.__closure__ or () if _is_filled(cell))
    elif isinstance(one, type):
        yield from one.__bases__
        for member in vars(one).values():
            yield getattr(member, "fget", None) or getattr(member, "__func__", member)
    else:
        yield type(one)


def _of_code(code: types.CodeType, known: Mapping[str, Any]) -> Iterator[Any]:
    for name in code.co_names:
        if isinstance(found := known.get(name), types.ModuleType):
            yield from _of_module(found, code.co_names)
        else:
            yield found
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_code(constant, known)


def _of_module(module: types.ModuleType, names: Iterable[str]) -> Iterator[Any]:
    for name in names:
        found = vars(module).get(name)
        if isinstance(found, types.ModuleType):
            yield from (vars(found).get(name) for name in names)
        else:
            yield found


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
