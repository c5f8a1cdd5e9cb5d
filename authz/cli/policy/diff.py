"""``authz policy diff``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.cli.app import ALLOWED, DENIED, say
from authz.cli.decision_logs import opened
from authz.cli.policy.source import policy_of
from authz.cli.progress import counted
from authz.errors import ConfigError
from authz.policy.explain.explanation import shown
from authz.policy.explain.replay import Change, Replay


def diff(
    old: Path | None = None,
    new: Path | None = None,
    /,
    *,
    decisions: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    descriptors: Path | None = None,
    old_descriptors: Path | None = None,
) -> int:
    """Replay a decision log through two policies, and print what would change.

    Exit codes: 0 if nothing would change, 1 if something would.

    Parameters
    ----------
    old
        The file of the policy in force.
    new
        The file of the policy to compare with it.
    decisions
        The decision log, JSON lines as `authz serve --decision-log all` writes them, also as .gz; - is standard input.
    descriptors
        A descriptor set whose methods declare who may call them, instead of the files or in addition to them.
    old_descriptors
        The descriptor set of the policy in force, if it is a different one.

    """
    if old is not None and new is None:
        raise ConfigError("new: missing; give the policy in force and the one to compare with it")
    replay = Replay(policy_of(old, old_descriptors or descriptors), policy_of(new, descriptors))
    with opened(decisions) as log:
        replay.feed(counted(log, "lines"))
    if replay.unreadable and not replay.readable:
        raise ConfigError(f"decisions: no line of {str(decisions)!a} is a decision; give the log of --decision-log")
    for change, count in sorted(replay.changes.items(), key=lambda item: (-item[1], item[0])):
        say(f"{count} {_line(change)}")
    for note in _notes(replay):
        say(f"note: {note}")
    changed = replay.changes.total()
    say(f"{changed} of {replay.replayed} decisions would change")
    return DENIED if changed else ALLOWED


def _line(change: Change) -> str:
    who = shown(change.organization) if change.organization else "no organization"
    what = shown(change.method) if change.verb == "POST" else f"{shown(change.verb)} {shown(change.method)}"
    return f"{what} {who}: {_ruling(*change.old)} -> {_ruling(*change.new)}"


def _ruling(verdict: str, rule: str) -> str:
    return f"{verdict} by {shown(rule)}" if rule else verdict


def _notes(replay: Replay) -> Iterator[str]:
    notes = {
        "lines are not decisions": replay.unreadable,
        "not replayed: no organization, so no policy was asked": replay.anonymous,
        "not replayed: refused or left undecided for another reason than a rule": replay.refused,
        "not replayed: they depend on headers or certificates, which the log does not hold": replay.conditional,
        "were decided otherwise then: by another policy, or because an operator suspended": replay.surprising,
    }
    yield from (f"{count} {note}" for note, count in notes.items() if count)
