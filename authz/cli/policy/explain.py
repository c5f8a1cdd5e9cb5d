"""``authz policy explain``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from authz.call.call import Call
from authz.call.peer import Peer
from authz.call.principal import ANONYMOUS, Principal
from authz.cli.app import ALLOWED, DENIED, UNDECIDED, header_of, say, secret_in, write
from authz.cli.policy.source import policy_of
from authz.cli.verify import VerifierFlags
from authz.errors import AuthzError, ConfigError, PeerUnknownError, UnavailableError
from authz.issuer.explanation import Explanation as TokenExplanation
from authz.issuer.explanation import explain as explain_token
from authz.issuer.verifiers import verifier_of
from authz.policy.explain.explanation import Explanation, RuleExplanation, as_data, shown
from authz.policy.explain.explanation import explain as explain_call
from authz.settings.settings import VerifierSettings

_STATUS = {"public": ALLOWED, "allowed": ALLOWED, "denied": DENIED, "suspended": DENIED, "undecided": UNDECIDED}
_MARKS = {True: "+", False: "-", None: "?"}
_WORDS = {True: "matches", False: "does not match", None: "cannot tell"}


class _Caller(NamedTuple):
    principal: Principal
    metadata: tuple[tuple[str, str], ...] = ()


class _Refused(NamedTuple):
    error: AuthzError
    why: TokenExplanation | None


def explain(
    file: Path | None = None,
    /,
    *,
    method: str,
    verb: str = "POST",
    descriptors: Path | None = None,
    token: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    organization: str | None = None,
    client: str | None = None,
    scopes: str | None = None,
    header: list[str] | None = None,
    principal: list[str] | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    flags: VerifierFlags = None,
) -> int:
    """Say what a policy decides about one call, and why each rule matches or does not.

    The caller is read from the token, which is verified as `authz verify` does; or assume one with --organization.

    Parameters
    ----------
    file
        The policy file.
    method
        The full method name, such as /ledger.v1.Ledger/List, or a path of HTTP.
    verb
        The HTTP method, such as GET.
    descriptors
        A descriptor set whose methods declare who may call them, instead of the file or in addition to it.
    token
        A file that holds the token; - is standard input.
    organization
        The caller's organization, instead of a token.
    client
        The M2M application, with --organization.
    scopes
        The scopes that the token would have, with blanks between them; with --organization.
    header
        NAME:VALUE of a header that the caller sends; may be repeated.
    principal
        An identity in the caller's certificate; empty for TLS without a certificate; may be repeated.
    as_json
        Print one JSON object.

    """
    policy, headers = policy_of(file, descriptors), tuple(map(header_of, header or ()))
    peer = None if principal is None else Peer(principals=tuple(principal))
    given = {"organization": organization, "client": client, "scopes": scopes}
    _check_caller(given, has_token=token is not None, is_public=method in policy.public)
    caller: _Caller | _Refused = _Caller(ANONYMOUS)
    if method not in policy.public:
        caller = _hypothetical(given) if token is None else _verified(token, flags)
    if isinstance(caller, _Refused):
        return _say_refused(caller, as_json=as_json)
    call = Call(method=method, metadata=(*caller.metadata, *headers), peer=peer, verb=verb)
    explanation = explain_call(policy, call, caller.principal)
    if as_json:
        write(json.dumps(as_data(explanation)))
    else:
        say(*_lines(explanation))
    return _STATUS[explanation.ruling.verdict]


def _check_caller(given: dict[str, str | None], *, has_token: bool, is_public: bool) -> None:
    names = [name for name, value in given.items() if value is not None]
    if has_token and names:
        raise ConfigError(f"{names[0]}: the token says it; give --{names[0]} or --token")
    if not has_token and not given["organization"] and not is_public:
        raise ConfigError("organization: missing; say who calls with --token or --organization")


def _hypothetical(given: dict[str, str | None]) -> _Caller:
    client, scopes = given["client"] or "", frozenset((given["scopes"] or "").split())
    return _Caller(
        Principal(org_id=given["organization"] or "", client_id=client, subject=client, scopes=scopes),
    )


def _say_refused(refused: _Refused, *, as_json: bool) -> int:
    error, why = refused
    undecided = isinstance(error, UnavailableError | PeerUnknownError)
    verdict = "undecided" if undecided else "denied"
    told = {} if why is None else why.as_data()
    if as_json:
        write(json.dumps({"verdict": verdict, "reason": error.reason, "message": str(error), **told}))
    else:
        lines = (f"  {name}: {text}" for name, text in told.items() if text)
        say(f"{verdict}: {error.reason} ({error})", *lines)
    return UNDECIDED if undecided else DENIED


def _verified(file: Path, flags: VerifierSettings | None) -> _Caller | _Refused:
    verifier = verifier_of(VerifierSettings.load(flags))
    try:
        token = secret_in(file, "token")
        # A rule may ask for this header too.
        return _Caller(verifier.verify(token), (("authorization", f"Bearer {token}"),))
    except AuthzError as error:
        return _Refused(error, explain_token(error, token, verifier))
    finally:
        verifier.close()


def _lines(explanation: Explanation) -> Iterator[str]:
    yield f"{explanation.ruling.verdict}: {explanation.decisive}"
    yield f"method {shown(explanation.method)}"
    if explanation.verb != "POST":
        yield f"verb {shown(explanation.verb)}"
    if explanation.ruling.verdict == "public":
        return
    known = [] if explanation.is_listed else ["not in organizations"]
    known += ["suspended"] if explanation.is_suspended else []
    known += [f"tenant {explanation.tenant}"] if explanation.tenant else []
    known += [f"groups {' '.join(explanation.groups)}"] if explanation.groups else []
    known += [f"quota {explanation.quota}"] if explanation.quota else []
    yield f"organization {shown(explanation.organization)}" + (f" ({', '.join(known)})" if known else "")
    of_list = ""
    for rule in explanation.rules:
        if rule.list != of_list:
            of_list = rule.list
            yield f"{of_list}:"
        yield from _rule_lines(
            rule, decides=(rule.list, rule.name) == (explanation.ruling.list, explanation.ruling.rule)
        )


def _rule_lines(rule: RuleExplanation, *, decides: bool) -> Iterator[str]:
    yield f"  {_MARKS[rule.matches]} {shown(rule.name)}: {_WORDS[rule.matches]}{', and decides' if decides else ''}"
    for failure in rule.failed:
        yield f"      {failure}"
