"""Remembered answers in one process: the only one, or the supervisor of several workers."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

from authz.call.metadata import TrustedMetadata
from authz.envoy.memo.script import script
from authz.runtime.network.unix_sockets import Permissions
from authz.server.memo.checked import Remembering
from authz.server.memo.discovery import Discovery, serve_discovery
from authz.server.memo.file import ScriptFile
from authz.server.memo.flushing import Flushing, Publish
from authz.server.serving.certificates import Certificates
from authz.settings.settings import Settings


class Running(NamedTuple):
    """What runs.

    Attributes:
        flushing: has Envoy forget.
        discovery: tells it, where it connects.

    """

    flushing: Flushing
    discovery: Discovery | None


@contextlib.asynccontextmanager
async def remembering(settings: Settings, tell: Publish) -> AsyncIterator[Running | None]:
    """Have Envoy remember answers until the end of the block, if the settings say so.

    Args:
        settings: the settings.
        tell: tells the generation to all who answer, so that they put it into their answers.

    Raises:
        ConfigError: a setting cannot work.

    """
    wanted = Remembering.of(settings)
    if wanted is None:
        yield None
        return
    source = partial(script, trusted=TrustedMetadata(), remove_authorization=settings.remove_authorization)
    async with contextlib.AsyncExitStack() as ending:
        discovery: Discovery | None = None
        if wanted.file is not None:
            publish = ScriptFile(wanted.file, source).publish
        else:
            discovery = Discovery(source)
            publish = discovery.publish
        if discovery is not None and wanted.address is not None:
            files = settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file
            certificates = Certificates.configured(*files) if wanted.address.kind == "tls" else None
            permissions = Permissions.parse(None, settings.socket_owner)
            serving = serve_discovery(discovery, wanted.address, permissions=permissions, certificates=certificates)
            await ending.enter_async_context(serving)
        flushing = Flushing(tell, publish)
        await ending.enter_async_context(flushing.running())
        yield Running(flushing, discovery)
