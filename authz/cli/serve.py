"""``authz serve``."""

import asyncio
import os
from typing import Annotated, Any

from cyclopts import Parameter

from authz import logs
from authz.cli import banner
from authz.cli.app import ALLOWED, app
from authz.settings import Settings

ServeFlags = Annotated[Settings | None, Parameter(name="*")]


@app.command
def serve(*, check_config: bool = False, flags: ServeFlags = None) -> int:
    """Run the external authorization server for Envoy (ext_authz v3).

    Every option may also be given as a variable, such as AUTHZ_JWKS_URL for --jwks-url, or in .env.

    Parameters
    ----------
    check_config
        Only check the configuration, and print it; nothing is bound or fetched.

    """
    # The core of gRPC logs in a format of its own what comes back as an error anyway.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from authz.envoy import server, unix_sockets  # noqa: PLC0415 - grpc, which the other commands need not load
    from authz.envoy.certificates import Certificates  # noqa: PLC0415 - as above

    settings = Settings.load(flags)
    authorizer = settings.authorizer()
    certificates = Certificates.configured(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    permissions = unix_sockets.Permissions.parse(settings.socket_mode, settings.socket_owner)
    addresses = server.check(
        settings.listen, engine=settings.engine, certificates=certificates, reflection=settings.reflection
    )
    if check_config:
        authorizer.close()
        print(banner.configuration(settings))
        return ALLOWED
    logs.configure(settings.log_level, settings.log_format)
    for address in addresses:
        if address.kind == "unix":
            unix_sockets.check_nobody_answers(address.path)
    serving = server.serve(
        authorizer,
        settings.listen,
        engine=settings.engine,
        certificates=certificates,
        permissions=permissions,
        reflection=settings.reflection,
        remove_authorization=settings.remove_authorization,
        grace=settings.grace,
        started=lambda addresses: banner.announce(settings, addresses, authorizer.verifier.health()),
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
