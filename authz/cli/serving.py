"""Serves, in this process or in several, once the flags are known."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from authz.cli import logs
from authz.cli.app import ALLOWED, MISUSED
from authz.errors import ConfigError
from authz.runtime.background import allow_background
from authz.server.workers import flags
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings


def run_worker() -> int:
    """Serve as one of several workers, with the flags that the supervisor has passed on."""
    given = flags.take()
    worker = Worker.of_environment()
    if worker is None:
        raise ConfigError(f"{flags.VARIABLE}: only authz serve sets it, for its workers")
    return serve_as(worker, lambda: Settings.load(**given))


def serve_as(worker: Worker, load: Callable[[], Settings]) -> int:
    """Serve as ``worker`` and return the exit code.

    Args:
        worker: which worker this process is.
        load: returns the settings.

    """
    with worker:
        try:
            settings = load()
            with settings.naming_origins():
                serve(settings, worker)
        except ConfigError as error:
            # All workers would report the same error, so the supervisor reports it once.
            worker.say(error=str(error))
            return MISUSED
    return ALLOWED


def serve(settings: Settings, worker: Worker | None) -> None:
    """Serve until a signal ends it; with several workers, unless this is one of them, supervise them.

    Raises:
        ConfigError: a setting is missing or cannot work.

    """
    always = {} if worker is None else {"worker": worker.number}
    allow_background()
    write_the_rest = logs.configure(settings.log_level, settings.log_format, **always)
    # gRPC's core would log, in a format of its own, what comes back as an error anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        if worker is None and settings.workers > 1:
            from authz.server import supervisor_process  # noqa: PLC0415 - late: other commands do without it

            _run(supervisor_process.run(settings))
        else:
            from authz.server import server_process  # noqa: PLC0415 - late: it loads grpc

            _run(server_process.run(settings, worker))
    finally:
        write_the_rest()


def _run(serving: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serving)


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
