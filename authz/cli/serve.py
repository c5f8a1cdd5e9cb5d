"""``authz serve``."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Annotated, Any

from authz.cli import logs
from authz.cli.app import ALLOWED, MISUSED, say
from authz.cli.program.flags import flags_of
from authz.errors import ConfigError
from authz.runtime.background import allow_background
from authz.runtime.configuration import check_posix
from authz.server.operations import banner
from authz.server.workers.worker import Worker
from authz.settings.settings import Settings

ServeFlags = Annotated[Settings | None, flags_of(Settings)]


def serve(*, check_config: bool = False, flags: ServeFlags = None) -> int:
    """Run the external authorization server for Envoy (ext_authz v3).

    Every option may also be set as a variable, such as AUTHZ_JWKS_URL for --jwks-url; or in a file, as jwks_url in that
    of --config, or as the variable in that of --env-file.

    Parameters
    ----------
    check_config
        Only check the configuration, and print it with where each value is from; nothing is bound or fetched.
        `authz doctor` also asks the issuer.

    """
    check_posix("serve")
    worker = Worker.of_environment()
    if worker is None:
        settings = Settings.load(flags)
        with settings.naming_origins():
            if check_config:
                _check(settings)
            else:
                _serve(settings, None)
        return ALLOWED
    with worker:
        try:
            settings = Settings.load(flags)
            with settings.naming_origins():
                _serve(settings, worker)
        except ConfigError as error:
            # All workers would report the same error, so the supervisor reports it once.
            worker.say(error=str(error))
            return MISUSED
    return ALLOWED


def _check(settings: Settings) -> None:
    from authz.server import server_process  # noqa: PLC0415 - late: it loads grpc

    policy = server_process.check_settings(settings)
    say(*banner.configuration(settings, policy).split("\n"))


def _serve(settings: Settings, worker: Worker | None) -> None:
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
