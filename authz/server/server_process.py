"""One server process, put together as the settings say: the only one, or one of several workers."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from authz.decisions.client_names import ClientNames
from authz.envoy.check.servicer import AuthorizationServicer
from authz.envoy.memo.mark import Memo
from authz.judge.authorizer import Authorizer
from authz.judge.configured import authorizer_of, workos_issuer
from authz.judge.reload import Reloader
from authz.policy.configured import descriptors_of, policy_in_force
from authz.runtime import telemetry
from authz.runtime.background import collect_as_usual
from authz.runtime.network.unix_sockets import Permissions
from authz.server import policy_files
from authz.server.listening import Listening
from authz.server.memo.checked import Remembering
from authz.server.operations import admin_page, banner
from authz.server.operations.observers import Observers
from authz.server.serving import server
from authz.server.serving.health import Health
from authz.server.serving.server import Companion, Listener
from authz.server.shared_orders import SharedOrders, shared_orders
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.decisions.audit import Audit
    from authz.envoy.access_log.service import AccessLog
    from authz.server.admin.activity import Activity
    from authz.server.forward_auth.check import ForwardAuth
    from authz.server.memo.running import Running
    from authz.server.operations.exposition import Format
    from authz.server.operations.metrics import Metrics
    from authz.store.shared_state import Sharing


def check_settings(settings: Settings) -> str:
    """Check all settings as far as can be done without binding or fetching anything; return the policy in words.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    Listening.of(settings)
    Remembering.of(settings)
    descriptors = descriptors_of(settings)
    policy_files.isolation(settings, descriptors)
    admin_page.check_admin_settings(settings)
    settings.webhook_secrets()
    if settings.store is not None:
        from authz.store.connection import Store  # noqa: PLC0415 - not needed without a store

        Store.of(settings)
    authorizer = authorizer_of(settings, descriptors=descriptors)
    _shared_limits(settings, authorizer)
    authorizer.close()
    return policy_in_force(settings, descriptors)


async def run(settings: Settings, worker: Worker | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP opens the decision log anew.

    Args:
        settings: the settings.
        worker: which of several workers this process is.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    async with contextlib.AsyncExitStack() as ending:
        observers = ending.enter_context(Observers.of(settings, None if worker is None else worker.number))
        deciding = _Deciding.of(settings, observers, worker)
        listening = Listening.of(settings, worker)
        shared = running = None
        if worker is None:
            listening.check_sockets_are_free()
            running = await ending.enter_async_context(_remembering(settings, deciding))
            shared = await ending.enter_async_context(_shared_orders(settings, deciding.authorizer))
            await ending.enter_async_context(_admin_page(settings, deciding.authorizer, observers.activity, shared))
        else:
            _follow(worker, deciding)
            await ending.enter_async_context(_turn(worker, deciding.authorizer, observers))
            # Orders come from the supervisor; calls are counted where they are decided.
            ending.enter_context(_shared_limits(settings, deciding.authorizer))
        if observers.audit is not None and listening.audit is not None:
            await ending.enter_async_context(_audit(observers.audit, listening.audit, listening.permissions, worker))
        if deciding.access_log is not None:
            await ending.enter_async_context(_hearing(deciding.access_log, listening, worker))
        if deciding.reloader is not None:
            ending.enter_context(deciding.reloader)
        await server.serve(
            deciding.servicer,
            listening.listen,
            engine=settings.engine,
            certificates=listening.certificates,
            permissions=listening.permissions,
            reflection=settings.reflection,
            reuse_port=worker is not None,
            drain=settings.drain,
            grace=settings.grace,
            also=[] if deciding.forward_auth is None else [_asked(deciding.forward_auth, listening, worker, ending)],
            beside=_companions(settings, deciding, observers, worker, shared, running=running),
            started=partial(_started, settings, deciding, worker),
            hung_up=observers.reopen_log,
        )


class _Deciding(NamedTuple):
    """What decides in this process.

    Attributes:
        authorizer: the judge.
        servicer: asks it what Envoy asks.
        access_log: is told by Envoy what it was not asked, if Envoy tells it.
        forward_auth: asks it what other proxies ask, if any may ask.
        reloader: puts its policies in force again whenever their files change.
        policy: in words, the policy in force at the start.
        memo: has Envoy remember answers, if it may.

    """

    authorizer: Authorizer
    servicer: AuthorizationServicer
    access_log: "AccessLog | None"
    forward_auth: "ForwardAuth | None"
    reloader: Reloader | None
    policy: str
    memo: Memo | None

    @classmethod
    def of(cls, settings: Settings, observers: Observers, worker: Worker | None) -> Self:
        # Before they are read for the first time: whatever changes in them from now on counts.
        files = policy_files.files(settings)
        descriptors = descriptors_of(settings)
        policy = policy_in_force(settings, descriptors)
        authorizer = authorizer_of(settings, list(observers), descriptors)
        if settings.workos_applications:
            authorizer.telling.client_names = ClientNames(workos_issuer(settings.listed()))
        wanted = Remembering.of(settings)
        memo = None if wanted is None else Memo(authorizer, wanted.seconds)
        servicer = AuthorizationServicer(
            authorizer,
            remove_authorization=settings.remove_authorization,
            jwt_authn_payload=settings.jwt_authn_payload,
            end_streams=settings.end_streams,
            isolation=policy_files.isolation(settings, descriptors),
            max_pending=settings.max_pending,
            memo=memo,
        )
        access_log = _access_log(settings, authorizer)
        reloader = policy_files.reloader(settings, files, authorizer, worker)
        return cls(authorizer, servicer, access_log, _forward_auth(settings, authorizer), reloader, policy, memo)

    @property
    def pending(self) -> int:
        """How many checks wait now, at every door."""
        return self.servicer.pending + (0 if self.forward_auth is None else self.forward_auth.waiting.count)


@contextlib.asynccontextmanager
async def _remembering(settings: Settings, deciding: _Deciding) -> "AsyncIterator[Running | None]":
    """Have Envoy remember what this process answers, and forget it as soon as something changes."""
    memo = deciding.memo
    if memo is None:
        yield None
        return
    from authz.server.memo.running import remembering  # noqa: PLC0415 - not needed where nothing is remembered

    async with remembering(settings, memo.begin) as running:
        if running is not None:
            deciding.authorizer.changes.watch(running.flushing.flush)
        yield running


def _follow(worker: Worker, deciding: _Deciding) -> None:
    """Have the supervisor tell Envoy of every change in this worker, and this worker the generation."""
    memo, changes = deciding.memo, deciding.authorizer.changes
    if memo is not None:
        worker.hear_generations(memo.begin)
        changes.watch(lambda: worker.say(changes=changes.count))


def _shared_orders(settings: Settings, authorizer: Authorizer) -> contextlib.AbstractAsyncContextManager[SharedOrders]:
    def share() -> "Sharing | None":
        if settings.store is None:
            return None
        from authz.store.shared_state import shared_state_of  # noqa: PLC0415 - not needed without a store

        # Usage is counted by the observers, in workers as well.
        return shared_state_of(settings, authorizer, usage_days=0)

    return shared_orders(
        settings,
        authorizer.operator,
        share,
        authorizer.standing.be_in_doubt,
        name=authorizer.telling.client_names.learn,
    )


def _shared_limits(settings: Settings, authorizer: Authorizer) -> contextlib.AbstractContextManager[object]:
    if settings.store is None:
        return contextlib.nullcontext()
    from authz.store.limits import SharedLimits  # noqa: PLC0415 - not needed without a store

    return SharedLimits.of(settings, authorizer) or contextlib.nullcontext()


def _admin_page(
    settings: Settings, authorizer: Authorizer, activity: "Activity | None", shared: SharedOrders
) -> contextlib.AbstractAsyncContextManager[object]:
    if activity is None:
        return contextlib.nullcontext()
    from authz.server.admin.one_process import OwnProcess  # noqa: PLC0415 - not needed without a page

    return admin_page.serving(settings, OwnProcess(authorizer, activity, shared=shared))


@contextlib.asynccontextmanager
async def _turn(worker: Worker, authorizer: Authorizer, observers: Observers) -> AsyncIterator[None]:
    """Wait until the supervisor lets this worker listen; answer the supervisor until the end of the block."""
    async with contextlib.AsyncExitStack() as ending:
        if worker.orders is not None:
            from authz.server.admin.activity import Activity  # noqa: PLC0415 - not needed without orders
            from authz.server.admin.one_process import OwnProcess  # noqa: PLC0415 - as above
            from authz.server.workers.link import answering_supervisor  # noqa: PLC0415 - as above

            # Before it listens: it must refuse every caller that its predecessor had orders to refuse.
            activity = observers.activity or Activity()
            own = OwnProcess(authorizer, activity, worker=worker.number, sample=observers.sample)
            await ending.enter_async_context(answering_supervisor(worker.orders, authorizer.operator, own.answer))
        # Only from here on: loading blocks the event loop, which could give no sign of life meanwhile.
        await ending.enter_async_context(worker.beating())
        # Before anything that only one process at a time may do.
        await worker.turn(authorizer)
        yield


@contextlib.asynccontextmanager
async def _audit(audit: "Audit", address: str, permissions: Permissions, worker: Worker | None) -> AsyncIterator[None]:
    from authz.decisions.audit import serve_audit  # noqa: PLC0415 - not needed without watchers

    # A worker takes over the socket of its predecessor: the supervisor has checked that no other server listens there.
    async with serve_audit(audit, address, permissions=permissions, takes_over=worker is not None) as bound:
        telemetry.event(telemetry.INFO, "audit_listening", address=bound)
        yield


def _access_log(settings: Settings, authorizer: Authorizer) -> "AccessLog | None":
    if settings.access_log_listen is None:
        return None
    from authz.envoy.access_log.service import AccessLog  # noqa: PLC0415 - not needed where Envoy tells nothing

    return AccessLog(authorizer.telling, authorizer.verifier.clock)


@contextlib.asynccontextmanager
async def _hearing(access_log: "AccessLog", listening: Listening, worker: Worker | None) -> AsyncIterator[None]:
    from authz.envoy.access_log.service import serve_access_log  # noqa: PLC0415 - as above

    address, takes_over = str(listening.access_log), worker is not None
    async with serve_access_log(access_log, address, permissions=listening.permissions, takes_over=takes_over) as bound:
        telemetry.event(telemetry.INFO, "access_log_listening", address=bound)
        yield


def _forward_auth(settings: Settings, authorizer: Authorizer) -> "ForwardAuth | None":
    if settings.forward_auth is None or settings.forward_auth_headers is None:
        return None
    from authz.server.forward_auth.check import ForwardAuth  # noqa: PLC0415 - not needed where only Envoy asks

    return ForwardAuth(authorizer, settings.forward_auth_headers, max_pending=settings.max_pending)


def _asked(
    check: "ForwardAuth", listening: Listening, worker: Worker | None, ending: contextlib.AsyncExitStack
) -> Listener:
    from authz.server.forward_auth.listener import HttpListener  # noqa: PLC0415 - as above

    listener = HttpListener(
        check,
        str(listening.forward_auth),
        certificates=listening.forward_auth_certificates,
        permissions=listening.permissions,
        is_shared=worker is not None,
    )
    ending.push_async_callback(listener.stop, 0.0)
    return listener


def _companions(
    settings: Settings,
    deciding: _Deciding,
    observers: Observers,
    worker: Worker | None,
    shared: SharedOrders | None,
    *,
    running: "Running | None",
) -> Sequence[Companion]:
    companions: list[Companion] = [] if worker is None else [worker.reporting]
    if observers.metrics is not None:
        if shared is not None:
            from authz.server.operations.order_figures import OrderFigures  # noqa: PLC0415 - late, as in Observers

            observers.metrics.add(OrderFigures(shared))
        if running is not None:
            from authz.server.operations.memo_figures import MemoFigures  # noqa: PLC0415 - late, as in Observers

            observers.metrics.add(MemoFigures(running))
        companions.append(partial(_metrics, settings, deciding, observers.metrics, worker))
    return companions


def _metrics(
    settings: Settings, deciding: _Deciding, figures: "Metrics", worker: Worker | None, health: Health
) -> contextlib.AbstractAsyncContextManager[object]:
    """Keep the figures of a worker up to date for its supervisor, or answer HTTP requests for them."""
    from authz.server.operations import metrics, probes  # noqa: PLC0415 - late, as in Observers

    reloader = deciding.reloader

    def refresh() -> None:
        offered = 0 if deciding.memo is None else deciding.memo.offered
        figures.refresh(
            deciding.authorizer,
            is_ready=not health.reason,
            pending=deciding.pending,
            offered=offered,
            reloader=reloader,
            access_log=None if deciding.access_log is None else deciding.access_log.counts,
        )

    def text(form: "Format") -> bytes:
        refresh()
        return figures.text(form)

    def is_stale() -> bool:
        return reloader is not None and reloader.is_failing

    def is_hung() -> bool:
        return health.still >= settings.worker_timeout

    if worker is not None or settings.http_listen is None:
        return metrics.kept_fresh(refresh)
    return probes.answering(settings.http_listen, lambda: health.reason, text, is_stale, is_hung)


def _started(settings: Settings, deciding: _Deciding, worker: Worker | None, addresses: Sequence[str]) -> None:
    collect_as_usual()
    if worker is not None:
        # The supervisor announces all workers at once.
        worker.say(listening=True)
    else:
        banner.announce(settings, deciding.policy, addresses, deciding.authorizer.verifier.health())
