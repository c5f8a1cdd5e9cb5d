"""What tests of the printed bootstrap share: a backend whose streams last, and where things stand in it."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from authz.demo.processes import Envoy
from tests.e2e.variants import manager_of
from tests.interceptors.servers import on_loopback

Config = dict[str, Any]
Start = Callable[..., Envoy]
"""Starts an Envoy with the printed bootstrap."""


class _Echo(grpc.GenericRpcHandler):
    """Answers every message of a stream with itself."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(lambda requests, _context: requests)


@contextlib.contextmanager
def streaming_echo() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[_Echo()])
    address = on_loopback(server)
    server.start()
    yield address
    server.stop(None).wait()


def manager(config: Config) -> Config:
    return manager_of(config["static_resources"]["listeners"][0])


def target(proxy: Envoy) -> str:
    return proxy.addresses()["ingress"]
