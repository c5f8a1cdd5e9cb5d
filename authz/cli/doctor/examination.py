"""The examination: every check in its order, whatever those before it found."""

from collections.abc import Callable, Iterator

from authz.cli.app import ALLOWED, DENIED, UNDECIDED
from authz.cli.doctor.credentials import check_introspection, check_token
from authz.cli.doctor.envoy.filters import check_envoy
from authz.cli.doctor.findings import Finding, fault, ok
from authz.cli.doctor.issuer import check_clock, check_issuer, check_keys, check_metadata
from authz.cli.doctor.listening import check_certificate, check_listen
from authz.cli.doctor.policy import check_policy
from authz.cli.doctor.running import check_server
from authz.cli.doctor.store import check_store
from authz.cli.doctor.subject import GENERAL, Subject
from authz.cli.doctor.workos import check_workos
from authz.errors import ConfigError

Check = Callable[[Subject], Iterator[Finding]]


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Check all settings as ``authz serve --check-config`` does."""
    from authz.server import server_process  # noqa: PLC0415 - late: it loads grpc

    try:
        server_process.check_settings(subject.settings)
    except ConfigError as error:
        yield subject.wrong(GENERAL, error)
    else:
        yield ok("they go together")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("settings", check_settings),
    ("issuer", check_issuer),
    ("metadata", check_metadata),
    ("clock", check_clock),
    ("keys", check_keys),
    ("token", check_token),
    ("introspection", check_introspection),
    ("policy", check_policy),
    ("envoy", check_envoy),
    ("listen", check_listen),
    ("certificate", check_certificate),
    ("store", check_store),
    ("workos", check_workos),
    ("server", check_server),
)
"""Each check by its name."""


def examine(subject: Subject) -> Iterator[Finding]:
    """Yield what every check finds, as soon as it is found."""
    for name, check in CHECKS:
        try:
            for finding in check(subject):
                yield finding.of(name, subject.without_secrets)
        except ConfigError as error:
            yield subject.wrong(GENERAL, error).of(name, subject.without_secrets)
        except Exception as error:  # noqa: BLE001 - the other checks are worth as much as before
            yield _unforeseen(error).of(name, subject.without_secrets)


def _unforeseen(error: Exception) -> Finding:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    # Never its text, which may quote a secret.
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return fault("unforeseen", f"it failed: {type(error).__name__}{where}")


def status_of(findings: list[Finding]) -> int:
    """Return the exit code: 1 with an error, 3 where something could not be looked at, else 0."""
    if any(each.level == "error" for each in findings):
        return DENIED
    return UNDECIDED if any(each.is_gap for each in findings) else ALLOWED
