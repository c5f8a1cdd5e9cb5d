"""The process that supervises several workers, put together as the settings say.

Each worker runs :mod:`authz.server.server_process`.
"""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from authz.errors import ConfigError
from authz.policy.configured import policy_in_force
from authz.runtime import fork
from authz.runtime.network.addresses import parse_all, socket_paths
from authz.runtime.network.unix_sockets import check_not_in_use
from authz.server.memo.checked import Remembering
from authz.server.operations import banner
from authz.server.workers import flags
from authz.server.workers.shared_addresses import SharedAddresses
from authz.server.workers.supervisor import Supervisor
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from authz.server.memo.running import Running
    from authz.server.operations.exposition import Format
    from authz.server.operations.metrics import SharedMetrics
    from authz.server.shared_orders import SharedOrders
    from authz.server.workers.links import Links

# After the grace: for connections to close and figures to be written.
_REST_SECONDS = 5.0


async def run(settings: Settings) -> None:
    """Serve with several workers until SIGTERM or SIGINT; SIGHUP replaces them one by one.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    if settings.audit_listen is not None and not settings.audit_listen.startswith("unix:"):
        # Through a shared port a client would watch one of the workers, and could not tell which.
        raise ConfigError("audit_listen: with several workers give unix:PATH, which becomes PATH.0, PATH.1, …")
    async with contextlib.AsyncExitStack() as ending:
        ending.enter_context(fork.running_programs())
        addresses = ending.enter_context(SharedAddresses(settings.listen))
        if settings.forward_auth is not None:
            ending.enter_context(SharedAddresses([settings.forward_auth], "forward_auth"))
        _check_sockets_are_free(settings, addresses)
        links, shared = await ending.enter_async_context(_orders(settings))
        figures = ending.enter_context(_figures(settings))
        flush = _Flush()
        supervisor = Supervisor(
            settings.workers,
            addresses,
            drain=settings.drain,
            patience=settings.drain + settings.grace + _REST_SECONDS,
            started=partial(_started, settings, policy_in_force(settings), addresses),
            ended=(lambda _: None) if figures is None else figures.ended,
            variables={**({} if figures is None else figures.variables), **flags.passed_on(settings)},
            timeout=settings.worker_timeout,
            links=links,
            changed=flush,
        )
        flush.running = await ending.enter_async_context(_remembering(settings, supervisor))
        await ending.enter_async_context(_probes(settings, supervisor, figures, shared, flush.running))
        await supervisor.run()


class _Flush:
    """Has Envoy forget what it remembers, if it remembers anything.

    Attributes:
        running: what tells it.

    """

    def __init__(self) -> None:
        self.running: Running | None = None

    def __call__(self) -> None:
        if self.running is not None:
            self.running.flushing.flush()


def _remembering(
    settings: Settings, supervisor: Supervisor
) -> "contextlib.AbstractAsyncContextManager[Running | None]":
    if Remembering.of(settings) is None:
        return contextlib.nullcontext()
    from authz.server.memo.running import remembering  # noqa: PLC0415 - it loads grpc, for which most have no need

    return remembering(settings, supervisor.begin)


def _check_sockets_are_free(settings: Settings, addresses: SharedAddresses) -> None:
    check_not_in_use(socket_paths(parse_all(addresses.all(settings.workers))))
    for setting in ("audit_listen", "access_log_listen", "forward_auth"):
        address: str | None = getattr(settings, setting)
        if address is not None and address.startswith("unix:"):
            path = address.removeprefix("unix:")
            check_not_in_use((f"{path}.{number}" for number in range(settings.workers)), setting)


@contextlib.asynccontextmanager
async def _orders(settings: Settings) -> "AsyncIterator[tuple[Links | None, SharedOrders | None]]":
    """Take orders, wherever they may come from, until the end of the block.

    Yield the links to workers, and what keeps and shares the orders; ``None`` where none can come.
    """
    if settings.admin is None and settings.orders is None and settings.store is None and not settings.workos_events:
        yield None, None
        return
    # Late: without orders the workers start sooner.
    from authz.server.admin.many_workers import Workers  # noqa: PLC0415
    from authz.server.operations import admin_page  # noqa: PLC0415
    from authz.server.shared_orders import operator_of, shared_orders, sharing_of  # noqa: PLC0415
    from authz.server.workers.about import About  # noqa: PLC0415
    from authz.server.workers.links import Links  # noqa: PLC0415

    operator = operator_of(settings)
    async with Links(operator) as links:
        about = About(links)
        share = partial(sharing_of, settings, operator, about, about.look)
        async with (
            shared_orders(settings, operator, share, links.tell_doubt, name=links.tell_names) as shared,
            admin_page.serving(settings, Workers(links, operator, shared)),
            about.kept(shared),
        ):
            yield links, shared


def _figures(settings: Settings) -> "contextlib.AbstractContextManager[SharedMetrics | None]":
    if settings.http_listen is None:
        return contextlib.nullcontext()
    from authz.server.operations.metrics import SharedMetrics  # noqa: PLC0415 - late, as in Observers

    return SharedMetrics()


def _probes(
    settings: Settings,
    supervisor: Supervisor,
    figures: "SharedMetrics | None",
    shared: "SharedOrders | None",
    memo: "Running | None",
) -> contextlib.AbstractAsyncContextManager[object]:
    if settings.http_listen is None or figures is None:
        return contextlib.nullcontext()
    from authz.server.operations import probes  # noqa: PLC0415 - late, as above
    from authz.server.operations.order_figures import OrderFigures  # noqa: PLC0415
    from authz.server.operations.process_figures import ProcessFigures  # noqa: PLC0415

    more: list[Collector] = [ProcessFigures(lambda: supervisor.processes)]
    if shared is not None:
        more.append(OrderFigures(shared))
    if memo is not None:
        from authz.server.operations.memo_figures import MemoFigures  # noqa: PLC0415 - late, as above

        more.append(MemoFigures(memo))

    def text(form: "Format") -> bytes:
        counts = {"running": supervisor.running, "restarts": supervisor.restarts, "hangs": supervisor.hangs}
        return figures.text(form, **counts, more=more)

    return probes.answering(settings.http_listen, lambda: supervisor.unready, text, lambda: supervisor.is_stale)


def _started(settings: Settings, policy: str, addresses: SharedAddresses) -> None:
    # Without the issuers' keys: each worker has its own.
    banner.announce(settings, policy, addresses.all(settings.workers), {})
