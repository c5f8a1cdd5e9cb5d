"""Entries of Envoy's access log, read into the decisions that Envoy has repeated. Pure.

The script that repeats answers marks each request (metadata ``authz.memo``)::

    decided: true
    told:    what the server has said of the caller, as a JSON object of strings; a blank; the HTTP method of the call;
             a blank; and its path

One text, because Envoy writes the members of an object in another order each time, and most texts are known already.
"""

import functools
import json
from typing import NamedTuple

from authz.call.call import MAX_METHOD, Call
from authz.call.principal import ANONYMOUS, Principal
from authz.call.verb import MAX_VERB, is_verb
from authz.call.words import is_identifier
from authz.decisions.decision import Decision, Evidence
from authz.envoy.memo.script import DECIDED, NAME
from authz.envoy.v3.access_log_pb2 import HTTPAccessLogEntry

MAX_TOLD = 16_384 + MAX_VERB + MAX_METHOD
"""Characters of what is told of a call; a token has at most 6 KiB of claims."""

_MOST_REMEMBERED = 2048
# Decisions are counted by the time: one that is told later than this counts when it is told.
_OLDEST = 86_400.0
_JSON = json.JSONDecoder()
_NAMES = ("organization", "client", "subject", "scopes", "issuer", "token_id", "key_id", "policy", "rule")


class UnreadableError(ValueError):
    """An entry that has the mark, and is not as the script writes it."""


class _About(NamedTuple):
    """What the server has said of a caller; see :class:`Principal` and :class:`Evidence`."""

    organization: str
    client: str
    subject: str
    scopes: str
    issuer: str
    token_id: str
    key_id: str
    policy: str
    rule: str


def repeated_decision(entry: HTTPAccessLogEntry, now: float) -> Decision | None:
    """Return the decision that Envoy has repeated; ``None`` if it has not, or the request goes on.

    Args:
        entry: what Envoy tells of one request.
        now: POSIX seconds. A request cannot have begun later, whatever Envoy's clock says.

    Raises:
        UnreadableError: it says that it has, and not for whom or for what.

    """
    common = entry.common_properties
    mark = common.metadata.filter_metadata.get(NAME)
    if mark is None or common.intermediate_log_entry:
        return None
    fields = mark.fields
    if not fields[DECIDED].bool_value:
        return None
    told = fields["told"].string_value
    call, evidence = _read(told) if len(told) <= _MOST_REMEMBERED else _read.__wrapped__(told)
    began = common.start_time
    time = began.seconds + began.nanos / 1e9
    return Decision(call, evidence, None, 0.0, time=time if now - _OLDEST <= time <= now else now)


# Neither is changed once a verdict has been told.
@functools.lru_cache(4096)
def _read(told: str) -> tuple[Call, Evidence]:
    if len(told) > MAX_TOLD:
        raise UnreadableError
    about, rest = _parsed(told)
    verb, _, path = rest.partition(" ")
    if not is_verb(verb) or not path.startswith("/") or len(path) > MAX_METHOD:
        raise UnreadableError
    return Call(path, (), verb=verb), _evidence(about)


def _evidence(about: _About) -> Evidence:
    evidence = Evidence()
    evidence.source = "envoy"
    evidence.policy, evidence.rule = about.policy, about.rule
    evidence.principal = _principal(about)
    return evidence


def _parsed(told: str) -> tuple[_About, str]:
    try:
        members, end = _JSON.raw_decode(told)
    except (ValueError, RecursionError):
        raise UnreadableError from None
    if not isinstance(members, dict) or told[end : end + 1] != " ":
        raise UnreadableError
    values = [members.get(name, "") for name in _NAMES]
    if not all(isinstance(value, str) for value in values):
        raise UnreadableError
    return _About(*values), told[end + 1 :]


def _principal(about: _About) -> Principal:
    if not about.organization:
        # A public method.
        return ANONYMOUS
    # As the judge accepts them; so they need no more care than those of a token.
    if not all(is_identifier(name) for name in (about.organization, about.client, about.subject) if name):
        raise UnreadableError
    return Principal(
        org_id=about.organization,
        client_id=about.client,
        subject=about.subject,
        scopes=frozenset(about.scopes.split()),
        issuer=about.issuer,
        token_id=about.token_id,
        key_id=about.key_id,
    )
