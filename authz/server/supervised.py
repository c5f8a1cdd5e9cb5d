"""Several server processes, put together as the settings say; each of them is :mod:`authz.server.process`."""

import contextlib
from functools import partial

from authz.errors import ConfigError
from authz.judge.configured import policy_in_force
from authz.runtime.network.addresses import parse_all, socket_paths
from authz.runtime.network.unix_sockets import check_nobody_answers
from authz.server.admin.many_workers import Workers
from authz.server.operations import admin_page, banner
from authz.server.workers.shared_addresses import SharedAddresses
from authz.server.workers.supervisor import Supervisor
from authz.settings.settings import Settings

# For what follows the grace: connections to close, figures to write.
_REST_SECONDS = 5.0


async def run(settings: Settings) -> None:
    """Serve with several workers until SIGTERM or SIGINT; SIGHUP replaces them one by one.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    if settings.audit_listen is not None and not settings.audit_listen.startswith("unix:"):
        # Of a shared port a watcher would get one worker, and not know which.
        raise ConfigError("audit_listen: with several workers give unix:PATH, which becomes PATH.0, PATH.1, …")
    async with contextlib.AsyncExitStack() as ending:
        addresses = ending.enter_context(SharedAddresses(settings.listen))
        check_nobody_answers(socket_paths(parse_all(addresses.all(settings.workers))))
        if settings.audit_listen is not None:
            path = settings.audit_listen.removeprefix("unix:")
            check_nobody_answers((f"{path}.{number}" for number in range(settings.workers)), "audit_listen")
        admin = None if settings.admin is None else await ending.enter_async_context(Workers())
        if admin is not None:
            await ending.enter_async_context(admin_page.serving(settings, admin))
        build = partial(
            Supervisor,
            settings.workers,
            addresses,
            drain=settings.drain,
            patience=settings.drain + settings.grace + _REST_SECONDS,
            started=partial(_started, settings, policy_in_force(settings), addresses),
            timeout=settings.worker_timeout,
            admin=admin,
        )
        if settings.http_listen is None:
            supervisor = build()
        else:
            # Late, as for one process.
            from authz.server.operations import metrics, probes  # noqa: PLC0415

            figures = ending.enter_context(metrics.SharedMetrics())
            supervisor = build(variables=figures.variables, ended=figures.ended)
            probing = probes.answering(
                settings.http_listen,
                lambda: supervisor.unready,
                lambda: figures.text(running=supervisor.running, restarts=supervisor.restarts, hangs=supervisor.hangs),
                lambda: supervisor.is_stale,
            )
            await ending.enter_async_context(probing)
        await supervisor.run()


def _started(settings: Settings, policy: str, addresses: SharedAddresses) -> None:
    # Each worker has the keys for itself.
    banner.announce(settings, policy, addresses.all(settings.workers), {})
