"""Services of generated code on a ``grpc.aio.server``, without the price that grpc asks for each of their methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import grpc.aio


class GenericServer:
    """What generated code takes for a server: it passes on handlers, and registers no methods.

    grpc.aio waits for a call of each registered method by a task of its own, and for every call, of whatever method,
    it begins to wait for all of them anew: about 6,000 instructions for each registered method (grpcio 1.85). A
    generic handler answers the same calls, and costs a call that it does not answer nothing.

    Args:
        server: the server.

    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """See ``grpc.aio.Server``."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Do nothing: the same handlers come as generic ones, too."""
