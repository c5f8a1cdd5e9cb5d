"""``authz serve``."""

from typing import Annotated

from authz.cli import serving
from authz.cli.app import ALLOWED, say
from authz.cli.program.flags import flags_of
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
    if worker is not None:
        return serving.serve_as(worker, lambda: Settings.load(flags))
    settings = Settings.load(flags)
    with settings.naming_origins():
        if check_config:
            _check(settings)
        else:
            serving.serve(settings, None)
    return ALLOWED


def _check(settings: Settings) -> None:
    from authz.server import server_process  # noqa: PLC0415 - late: it loads grpc

    policy = server_process.check_settings(settings)
    say(*banner.configuration(settings, policy).split("\n"))
