"""``authz serve``."""

import asyncio
import os
from typing import Annotated, Any

from cyclopts import Parameter

from authz import logs, telemetry
from authz.cli.app import ALLOWED, app
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
    logs.configure(settings.log_level, settings.log_format)
    serving = server.serve(
        settings.authorizer(),
        settings.listen,
        engine=settings.engine,
        remove_authorization=settings.remove_authorization,
        jwt_authn_payload=settings.jwt_authn_payload,
        grace=settings.grace,
        started=lambda addresses: telemetry.event(
            telemetry.INFO, "listening", addresses=list(addresses), issuer=settings.issuer, audience=settings.audience
        ),
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serving)
    return ALLOWED


def _loop_factory() -> Any:
    try:
        import uvloop  # noqa: PLC0415 - not there on Windows
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop
