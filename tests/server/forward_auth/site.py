"""A judge, the proxies that ask it over HTTP and an Envoy that asks it by gRPC, all in front of one upstream."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from authz.judge.authorizer import Authorizer
from authz.runtime.network.unix_sockets import Permissions
from authz.server.forward_auth.check import ForwardAuth
from authz.server.forward_auth.listener import HttpListener
from authz.server.forward_auth.question import Headers
from authz.server.serving.certificates import Certificates
from tests.e2e.mesh import serve_here
from tests.interceptors.servers import Loop
from tests.server.forward_auth.http1 import Upstream
from tests.server.forward_auth.proxies import HEADERS, running, running_envoy


class Site(NamedTuple):
    """What runs.

    Attributes:
        doors: the address of each proxy, by its name; ``envoy`` is the one that asks by gRPC.
        upstream: what stands behind each.

    """

    doors: dict[str, str]
    upstream: Upstream


@contextlib.contextmanager
def asked_over_http(
    judge: Authorizer, headers: Headers, address: str = "127.0.0.1:0", certificates: Certificates | None = None
) -> Iterator[str]:
    """Have ``judge`` asked over HTTP until the end of the block; yield the address."""
    loop = Loop()

    async def start() -> HttpListener:
        check = ForwardAuth(judge, headers)
        listener = HttpListener(check, address, certificates=certificates, permissions=Permissions())
        await listener.start()
        return listener

    try:
        listener = loop.run(start())
        yield listener.address
        loop.run(listener.stop(0))
    finally:
        loop.close()


@contextlib.contextmanager
def site(judge: Authorizer, folder: Path, *names: str) -> Iterator[Site]:
    """Run the proxies of these names until the end of the block, and an Envoy that asks by gRPC."""
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Upstream())
        socket = f"unix:{folder}/authz.sock"
        stack.enter_context(serve_here(judge, socket))
        own = folder / "envoy"
        own.mkdir()
        envoy = stack.enter_context(running_envoy(own, socket, upstream.address))
        doors = stack.enter_context(forward_doors(judge, folder, upstream.address, *names))
        yield Site({"envoy": envoy, **doors}, upstream)


@contextlib.contextmanager
def forward_doors(judge: Authorizer, folder: Path, api: str, *names: str) -> Iterator[dict[str, str]]:
    """Run the proxies of these names in front of the upstream ``api``; yield their addresses, by name."""
    with contextlib.ExitStack() as stack:
        doors = {}
        for name in names:
            own = folder / name
            own.mkdir()
            asked = stack.enter_context(asked_over_http(judge, HEADERS[name]))
            doors[name] = stack.enter_context(running(name, own, asked, api))
        yield doors
