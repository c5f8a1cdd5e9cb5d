"""What ``authz serve`` says when it starts: a table on a terminal, or else an event in the log."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from authz.runtime import telemetry
from authz.runtime.text.printable import printable
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.issuer.keys import KeySetHealth

_NO_POLICY = "none: every good token may call everything"


def announce(settings: Settings, policy: str, addresses: Sequence[str], keys: "Mapping[str, KeySetHealth]") -> None:
    """Tell where the server listens, its policy and its settings, with secrets masked.

    Args:
        settings: the settings.
        policy: the result of :func:`authz.policy.configured.policy_in_force`; if it is empty, that is a warning.
        addresses: where the server listens.
        keys: the state of each issuer's keys.

    """
    facts: dict[str, Any] = {
        "policy": policy or _NO_POLICY,
        "addresses": list(addresses),
        "issuer": settings.issuer or settings.issuers,
        "audience": settings.audience,
        "engine": settings.engine,
        "workers": settings.workers,
    }
    if settings.log_format != "json" and sys.stderr.isatty():
        _print(settings, policy, addresses, keys)
    else:
        facts |= {"keys": {issuer: _state(health) for issuer, health in keys.items()}, "settings": settings.masked()}
    telemetry.event(telemetry.INFO if policy else telemetry.WARNING, "listening", **facts)


def configuration(settings: Settings, policy: str) -> str:
    """Return as text the policy in force, then all settings, a line each with its origin, and secrets masked."""
    decides = f"policy in force: {policy}" if policy else f"warning: policy in force: {_NO_POLICY}"
    lines = [f"  {name}: {_text(value)}{_origin(settings, name)}" for name, value in settings.masked().items()]
    listed = settings.listed()
    issuers = [] if listed is None else [f"issuer: {printable(words)}" for words in listed.in_words()]
    return "\n".join(["configuration is good", decides, *issuers, *lines])


def _origin(settings: Settings, name: str) -> str:
    origin = settings.origin(name)
    return f" ({printable(origin)})" if origin else ""


def _print(settings: Settings, policy: str, addresses: Sequence[str], keys: "Mapping[str, KeySetHealth]") -> None:
    # Late: without a terminal nothing is drawn.
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    defaults = type(settings).model_construct().masked()
    chosen = {name: value for name, value in settings.masked().items() if value != defaults[name]}
    # Without those that have a line of their own.
    rows = {name: _text(value) for name, value in chosen.items() if name not in {"listen", "engine"}}
    rows["policy"] = policy or _NO_POLICY
    if settings.admin is not None:
        rows["admin"] = f"http://{settings.admin}/"
    table = Table.grid(padding=(0, 2))
    if keys:
        rows["keys"] = "; ".join(map(_words, keys.values()))
    for name, value in {"listening on": ", ".join(addresses), "engine": settings.engine, **rows}.items():
        # As Text, because a value may look like markup.
        style = "bold red" if value == _NO_POLICY else ""
        table.add_row(Text(name, style="dim"), Text(printable(value), style=style))
    Console(stderr=True).print(Text("authz serve", style="bold"), table)


def _state(health: "KeySetHealth") -> dict[str, Any]:
    return {"keys": health.keys, "age": health.age, "is_ready": health.is_ready}


def _words(health: "KeySetHealth") -> str:
    if not health.is_ready:
        return "not there yet"
    count = f"{health.keys} key{'' if health.keys == 1 else 's'}"
    return count if health.age is None else f"{count}, {health.age:.0f} s old"


def _text(value: object) -> str:
    if value is None or value in ([], ""):
        return "-"
    return printable(", ".join(map(str, value)) if isinstance(value, list) else str(value))
