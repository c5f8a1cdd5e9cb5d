"""One server process, put together as the settings say."""

import contextlib
import gc
from collections.abc import Sequence

from authz import telemetry
from authz.authorizer import Authorizer
from authz.decision import Observer
from authz.decision_log import DecisionLog
from authz.envoy.health import Health
from authz.envoy.server import Companion, serve
from authz.envoy.servicer import AuthorizationServicer
from authz.settings import Settings


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP opens the decision log anew.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    observers: list[Observer] = []
    beside: list[Companion] = []
    with contextlib.ExitStack() as ending:
        log: DecisionLog | None = None
        if settings.decision_log != "off":
            log = DecisionLog(settings.decision_log, settings.decision_log_file)
            ending.callback(log.close)
            observers.append(log)
        authorizer = settings.authorizer()
        if settings.http_listen is not None:
            observe, answer = _counting(settings, settings.http_listen, authorizer, log)
            observers.append(observe)
            beside.append(answer)
        await serve(
            authorizer,
            settings.listen,
            engine=settings.engine,
            remove_authorization=settings.remove_authorization,
            observers=observers,
            max_pending=settings.max_pending,
            drain=settings.drain,
            grace=settings.grace,
            beside=beside,
            started=lambda addresses: _started(settings, addresses),
            hung_up=lambda: _hung_up(log),
        )


def _counting(
    settings: Settings, address: str, authorizer: Authorizer, log: DecisionLog | None
) -> tuple[Observer, Companion]:
    # Late: it takes a fifth of a second to load, which not everybody needs.
    from authz.envoy import metrics, probes  # noqa: PLC0415

    figures = metrics.Metrics(authorizer, engine=settings.engine, dropped=None if log is None else lambda: log.dropped)

    def answer(health: Health, servicer: AuthorizationServicer) -> contextlib.AbstractAsyncContextManager[object]:
        return probes.answering(
            address,
            lambda: health.reason,
            lambda: figures.text(is_ready=not health.reason, pending=servicer.pending),
        )

    return figures, answer


def _started(settings: Settings, addresses: Sequence[str]) -> None:
    # What has been built by now stays until the end: nobody need look through it for garbage again.
    gc.freeze()
    telemetry.event(
        telemetry.INFO, "listening", addresses=list(addresses), issuer=settings.issuer, audience=settings.audience
    )


def _hung_up(log: DecisionLog | None) -> None:
    telemetry.event(telemetry.INFO, "hung_up")
    if log is not None:
        log.reopen()
