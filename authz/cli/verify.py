"""``authz verify``."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from authz.cli.app import ALLOWED, DENIED, UNDECIDED, say, standard_input, write
from authz.cli.program.flags import flags_of
from authz.errors import AuthzError, ConfigError, UnavailableError
from authz.issuer.explanation import explain, unverified
from authz.issuer.verifiers import verifier_of
from authz.settings.settings import VerifierSettings

VerifierFlags = Annotated[VerifierSettings | None, flags_of(VerifierSettings)]


def verify(
    *token: Annotated[str, Parameter(allow_leading_hyphen=True)],
    as_json: Annotated[bool, Parameter(name="--json")] = False,
    flags: VerifierFlags = None,
) -> int:
    """Verify one token, and print verdict and reason, what was found and expected, header and claims.

    The signature is never shown.

    Parameters
    ----------
    token
        The token, and no file; - is standard input, and so is none.
    as_json
        Print one JSON object.

    """
    text = _text(token)
    settings = VerifierSettings.load(flags)
    with settings.naming_origins():
        verifier = verifier_of(settings)
    report: dict[str, Any] = {"verdict": "allowed", "reason": "", "claims_verified": True}
    status = ALLOWED
    try:
        principal = verifier.verify(text)
        report |= {"org_id": principal.org_id, "client_id": principal.client_id, "scopes": sorted(principal.scopes)}
    except AuthzError as error:
        undecided = isinstance(error, UnavailableError)
        status = UNDECIDED if undecided else DENIED
        report |= {"verdict": "undecided" if undecided else "denied", "reason": error.reason, "message": str(error)}
        report["claims_verified"] = False
        explanation = explain(error, text, verifier)
        report |= {} if explanation is None else explanation.as_data()
    finally:
        verifier.close()
    report |= unverified(text)._asdict()
    if as_json:
        write(json.dumps(report))
    else:
        say(*_lines(report))
    return status


def _text(tokens: Sequence[str]) -> str:
    for each in tokens:
        if each.startswith("--"):
            # A leading hyphen is allowed only for "-" itself.
            raise ConfigError(f"Unknown option: {each.partition('=')[0]}; the token follows the options, without one")
    if len(tokens) > 1:
        raise ConfigError(f"too many arguments: {len(tokens)}; give one token")
    given = tokens[0] if tokens else "-"
    return (standard_input() if given == "-" else given).strip()


def _lines(report: dict[str, Any]) -> list[str]:
    lines = [report["verdict"] + (f": {report['reason']} ({report['message']})" if report["reason"] else "")]
    lines += [
        f"  {name}: {value if isinstance(value, str) else ' '.join(value)}"
        for name, value in report.items()
        if name in ("org_id", "client_id", "scopes", "found", "expected", "setting") and value != ""
    ]
    for part in ("claims", "header"):
        if report[part] is not None:
            lines.append(f"{part}:" if report["claims_verified"] else f"{part} (NOT verified):")
            lines += [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in report[part].items()]
    return lines
