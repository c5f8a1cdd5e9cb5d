"""One server process, put together as the settings say."""

import contextlib
import gc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from authz.decisions.audit import Audit, check_audit_address, serve_audit
from authz.decisions.decision import Observer
from authz.decisions.log import DecisionLog
from authz.envoy.check.servicer import AuthorizationServicer
from authz.errors import ConfigError
from authz.judge.authorizer import Authorizer
from authz.judge.configured import authorizer_of, policy_in_force
from authz.judge.reload import Reloader
from authz.runtime import telemetry
from authz.runtime.network.addresses import Address, parse_all, socket_paths
from authz.runtime.network.unix_sockets import Permissions, check_nobody_answers
from authz.server import judge
from authz.server.admin.activity import Activity
from authz.server.admin.one_process import OwnProcess
from authz.server.admin.worker_link import answering_supervisor
from authz.server.operations import admin_page, banner
from authz.server.serving import server
from authz.server.serving.certificates import Certificates
from authz.server.serving.health import Health
from authz.server.serving.server import Companion
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.server.operations.metrics import Metrics


def check(settings: Settings) -> None:
    """Check all settings as far as can be done without binding or fetching anything.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    _listening(settings, settings.listen)
    judge.isolation(settings)
    admin_page.check(settings)
    authorizer_of(settings).close()


async def run(settings: Settings, worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP opens the decision log anew.

    Args:
        settings: the settings.
        worker: which of several processes this is.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    beside: list[Companion] = []
    async with contextlib.AsyncExitStack() as ending:
        log: DecisionLog | None = None
        if settings.decision_log != "off":
            log = DecisionLog(settings.decision_log, settings.decision_log_file)
            ending.callback(log.close)
        figures = None if settings.http_listen is None else _figures(settings, log, worker)
        audit = None if settings.audit_listen is None else Audit()
        activity = None if settings.admin is None else Activity()
        observers: list[Observer | None] = [log, figures, audit, activity]
        files = judge.files(settings)
        policy = policy_in_force(settings)
        authorizer = authorizer_of(settings, [observer for observer in observers if observer is not None])
        listen = settings.listen if worker is None else worker.listen
        addresses, certificates, permissions = _listening(settings, listen)
        if worker is None:
            # The supervisor has asked for all its workers, and a successor is to take over.
            check_nobody_answers(socket_paths(addresses))
            if activity is not None:
                await ending.enter_async_context(admin_page.serving(settings, OwnProcess(authorizer, activity)))
        else:
            if activity is not None and worker.admin is not None:
                # Before it listens: it must not let in whom its predecessor kept out.
                own = OwnProcess(authorizer, activity, worker=worker.number)
                await ending.enter_async_context(answering_supervisor(worker.admin, own))
            # From here on: what came before took the time that it took, and the loop could say nothing.
            await ending.enter_async_context(worker.beating())
            # Before anything that only one process at a time may do.
            await worker.turn(authorizer)
            beside.append(worker.reporting)
        if audit is not None and settings.audit_listen is not None:
            # As above: of a worker's socket the supervisor knows whose it is.
            serving = serve_audit(
                audit, _of(worker, settings.audit_listen), permissions=permissions, takes_over=worker is not None
            )
            address = await ending.enter_async_context(serving)
            telemetry.event(telemetry.INFO, "audit_listening", address=address)
        servicer = AuthorizationServicer(
            authorizer,
            remove_authorization=settings.remove_authorization,
            jwt_authn_payload=settings.jwt_authn_payload,
            isolation=judge.isolation(settings),
            max_pending=settings.max_pending,
        )
        reloader = judge.reloader(settings, files, authorizer, worker)
        if reloader is not None:
            ending.enter_context(reloader)
        if figures is not None:
            beside.append(partial(_telling, settings, figures, servicer, worker=worker, reloader=reloader))
        await server.serve(
            servicer,
            listen,
            engine=settings.engine,
            certificates=certificates,
            permissions=permissions,
            reflection=settings.reflection,
            reuse_port=worker is not None,
            drain=settings.drain,
            grace=settings.grace,
            beside=beside,
            started=partial(_started, settings, worker, policy, authorizer),
            hung_up=partial(_hung_up, log),
        )


def _listening(settings: Settings, listen: Sequence[str]) -> tuple[Sequence[Address], Certificates | None, Permissions]:
    certificates = Certificates.configured(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    permissions = Permissions.parse(settings.socket_mode, settings.socket_owner)
    addresses = server.check(listen, engine=settings.engine, certificates=certificates, reflection=settings.reflection)
    if settings.audit_listen is not None:
        _check_audit(settings.audit_listen, settings.listen)
    return addresses, certificates, permissions


def _check_audit(address: str, listen: Sequence[str]) -> None:
    check_audit_address(address)
    sockets = {Path(path).absolute() for path in socket_paths(parse_all(listen))}
    if Path(address.removeprefix("unix:")).absolute() in sockets:
        raise ConfigError(f"audit_listen: {address!a} stands in listen, too; choose another path")


def _of(worker: Worker | None, address: str) -> str:
    """Return the address of one worker, as those of the server."""
    return address if worker is None else f"{address}.{worker.number}"


def _figures(settings: Settings, log: DecisionLog | None, worker: Worker | None) -> "Metrics":
    # Late: it takes a fifth of a second to load, which not everybody needs.
    from authz.server.operations import metrics  # noqa: PLC0415

    return metrics.Metrics(
        engine=settings.engine,
        dropped=None if log is None else lambda: log.dropped,
        worker=None if worker is None else worker.number,
    )


def _telling(
    settings: Settings,
    figures: "Metrics",
    servicer: AuthorizationServicer,
    health: Health,
    *,
    worker: Worker | None,
    reloader: Reloader | None,
) -> contextlib.AbstractAsyncContextManager[object]:
    from authz.server.operations import metrics, probes  # noqa: PLC0415 - as above

    def refresh() -> None:
        figures.refresh(servicer.authorizer, is_ready=not health.reason, pending=servicer.pending, reloader=reloader)

    def text() -> bytes:
        refresh()
        return figures.text()

    def is_stale() -> bool:
        return reloader is not None and reloader.is_failing

    if worker is not None or settings.http_listen is None:
        return metrics.kept_fresh(refresh)

    def is_hung() -> bool:
        return health.still >= settings.worker_timeout

    return probes.answering(settings.http_listen, lambda: health.reason, text, is_stale, is_hung)


def _started(
    settings: Settings, worker: Worker | None, policy: str, authorizer: Authorizer, addresses: Sequence[str]
) -> None:
    # What has been built by now stays until the end: nobody need look through it for garbage again.
    gc.freeze()
    if worker is not None:
        # The supervisor says it once for all.
        worker.say(listening=True)
    else:
        banner.announce(settings, policy, addresses, authorizer.verifier.health())


def _hung_up(log: DecisionLog | None) -> None:
    telemetry.event(telemetry.INFO, "hung_up")
    if log is not None:
        log.reopen()
