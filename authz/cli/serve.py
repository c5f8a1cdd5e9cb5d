"""``authz serve``."""

import asyncio
import contextlib
import gc
import os
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from authz import logs, telemetry
from authz.cli.app import ALLOWED, app
from authz.decision import Observer
from authz.decision_log import DecisionLog
from authz.errors import ConfigError
from authz.settings import Settings

ServeFlags = Annotated[Settings | None, Parameter(name="*")]


@app.command
def serve(*, flags: ServeFlags = None) -> int:
    """Run the external authorization server for Envoy (ext_authz v3).

    Every option may also be given as a variable, such as AUTHZ_JWKS_URL for --jwks-url, or in .env.
    """
    # The core of gRPC logs in a format of its own what comes back as an error anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from authz.envoy import server  # noqa: PLC0415 - grpc, which the other commands need not load

    settings = Settings.load(flags)
    with contextlib.ExitStack() as ending:
        ending.callback(logs.configure(settings.log_level, settings.log_format))
        observers: list[Observer] = []
        if settings.decision_log != "off":
            decision_log = DecisionLog(settings.decision_log, settings.decision_log_file)
            ending.callback(decision_log.close)
            observers.append(decision_log)
        serving = server.serve(
            settings.authorizer(),
            settings.listen,
            engine=settings.engine,
            remove_authorization=settings.remove_authorization,
            observers=observers,
            isolation=_isolation(settings),
            max_pending=settings.max_pending,
            grace=settings.grace,
            started=lambda addresses: _started(settings, addresses),
        )
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serving)
    return ALLOWED


def _isolation(settings: Settings) -> Any:
    from authz.envoy.isolation import RequestIsolation  # noqa: PLC0415 - as above

    if settings.descriptors is not None:
        return RequestIsolation(settings.descriptors, settings.isolation)
    if settings.isolation == "enforce":
        raise ConfigError("isolation: enforce needs AUTHZ_DESCRIPTORS or --descriptors, which say what to check")
    return None


def _started(settings: Settings, addresses: Sequence[str]) -> None:
    # What has been built by now stays until the end: nobody need look through it for garbage again.
    gc.freeze()
    telemetry.event(
        telemetry.INFO,
        "listening",
        addresses=list(addresses),
        issuer=settings.issuer,
        audience=settings.audience,
    )


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
