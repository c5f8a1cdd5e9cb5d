"""The check of the messages in bodies of requests: a request may name no organization but the caller's."""

import os
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from authz.call.principal import Principal
from authz.errors import ConfigError
from authz.http.messages import message_in
from authz.http.paths import MAX_PATH, methods_in
from authz.http.wire import Layout, layouts_of
from authz.policy.protos.descriptors import Descriptors, methods_of
from authz.policy.protos.isolation import places_of, unverified

Strictness = Literal["when_body", "enforce"]


class _Method(NamedTuple):
    """A method whose requests have marked fields.

    Attributes:
        type: the class of its requests.
        layout: how they are written.
        is_stream: whether one call may have several requests.

    """

    type: Any
    layout: Layout
    is_stream: bool

    def check_body(self, body: bytes, ids: Collection[bytes]) -> None:
        """Check that the one message in ``body`` names only ``ids``.

        Raises:
            PermissionDeniedError: it names another organization, or may.

        """
        data = message_in(body)
        # The layout first, because it reads a bounded number of fields; the parser makes an object of each.
        self.layout.check_serialized(data, ids)
        try:
            self.type.FromString(data)
        except DecodeError:
            # Another parser may find more in a message that this one cannot parse.
            raise unverified("the message cannot be parsed") from None


class RequestIsolation:
    """Check which organizations requests name, for each method whose requests have marked fields.

    Args:
        file: the descriptor set; ``buf build -o api.binpb`` writes one.
        strictness: what happens if the door sees no body of such a request. ``when_body``: the call is left to the
            upstream; ``enforce``: it is refused, which stops every stream of requests.

    Attributes:
        unary: the full names of all methods with one request and one response.

    Raises:
        ConfigError: the file cannot be read, or marks a field that is not a string.

    """

    def __init__(self, file: Descriptors | str | os.PathLike[str], strictness: Strictness = "when_body") -> None:
        descriptors = Descriptors.of(file)
        methods = dict(methods_of(descriptors.services))
        try:
            # Classes from the pool of the file: a class of this process with the same name may differ.
            types: dict[str, Any] = {name: GetMessageClass(method.input_type) for name, method in methods.items()}
            types = {name: one for name, one in types.items() if places_of(one) is not None}
            layouts = layouts_of(one.DESCRIPTOR for one in types.values())
        except ConfigError as error:
            raise ConfigError(f"{descriptors.source}: {error}") from None
        self._marked = {
            name: _Method(one, layouts[one.DESCRIPTOR], is_stream=methods[name].client_streaming)
            for name, one in types.items()
        }
        self._others = methods.keys() - types.keys()
        self._spellings = {spelling for name in self._marked for spelling in methods_in(name)}
        self._is_strict = strictness == "enforce"
        self.unary = frozenset(
            name for name, one in methods.items() if not (one.client_streaming or one.server_streaming)
        )

    @property
    def is_idle(self) -> bool:
        """Whether no request of any method has a marked field."""
        return not self._marked

    def looks_at(self, method: str) -> bool:
        """Say whether a call to ``method`` is allowed or not by what else its request says."""
        return method in self._marked

    def check_request(self, path: str, verb: str, principal: Principal, body: Callable[[], bytes]) -> None:
        """Check a request.

        Args:
            path: its path with the query, as the server behind the door gets it.
            verb: its HTTP method.
            principal: who makes it.
            body: returns its body; empty if the door does not see it. Raises if it is not whole, or no gRPC message.

        Raises:
            PermissionDeniedError: it names another organization (``organization_mismatch``), or may name one
                (``organization_unverified``).

        """
        method = self._marked.get(path)
        if method is None:
            self._check_path(path)
            return
        if verb != "POST":
            # The message may be in the path or in a header; Connect puts that of a GET into the query.
            raise unverified("the request is not a POST")
        shown = body()
        if not shown and not self._is_strict:
            return
        if not shown:
            raise unverified("no body is shown; for Envoy set with_request_body for this method")
        if method.is_stream:
            # A body as long as max_request_bytes may be the beginning of a longer one, and Envoy does not say so.
            raise unverified("the body of a stream of requests is never known to be whole")
        method.check_body(shown, {name.encode() for name in ("", principal.org_id, principal.tenant)})

    def _check_path(self, path: str) -> None:
        if path in self._others or not self._marked:
            return
        if len(path) > MAX_PATH or not self._spellings.isdisjoint(methods_in(path)):
            raise unverified("the path may be another spelling of a method whose requests name organizations")
