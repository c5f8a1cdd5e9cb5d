"""The check of the messages that Envoy shows: no request may name another organization than the caller's."""

from pathlib import Path
from typing import Any, Literal

from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from authz.call import Principal
from authz.descriptors import load_services, methods_of
from authz.envoy.check.bodies import body_of, messages_in, unverified
from authz.errors import ConfigError
from authz.isolation import check, places_of

Strictness = Literal["when_body", "enforce"]


class RequestIsolation:
    """Check what requests name, for the methods of a descriptor set whose requests have marked fields.

    Args:
        path: a ``google.protobuf.FileDescriptorSet``; ``buf build -o api.binpb`` writes one.
        strictness: what happens where Envoy shows no body of such a method. ``when_body``: the call is left to the
            upstream; ``enforce``: it is refused, which stops every stream whose body Envoy cannot show.

    Raises:
        ConfigError: the file cannot be read, or marks a field that is no string.

    """

    def __init__(self, path: str | Path, strictness: Strictness = "when_body") -> None:
        # A class of its own for each, of the file's pool: what this process has under the same name may differ.
        types: dict[str, Any] = {
            name: GetMessageClass(method.input_type) for name, method in methods_of(load_services(path))
        }
        try:
            self._types = {name: one for name, one in types.items() if places_of(one) is not None}
        except ConfigError as error:
            raise ConfigError(f"descriptors: {str(path)!a}: {error}") from None
        self._is_strict = strictness == "enforce"

    @property
    def is_idle(self) -> bool:
        """Whether no request of any method has a marked field."""
        return not self._types

    def check(self, question: bytes, method: str, principal: Principal, *, grpc: bool) -> None:
        """Check the request that Envoy asks about.

        Args:
            question: a serialized ``CheckRequest`` that has been read before.
            method: the full method name, which is the path of the request.
            principal: who makes it.
            grpc: whether Envoy takes it for gRPC.

        Raises:
            PermissionDeniedError: it names another organization (``organization_mismatch``), or may name one and
                nobody can tell (``organization_unverified``).

        """
        message_type = self._types.get(method)
        if message_type is None:
            return
        body = body_of(question)
        if not body and not self._is_strict:
            return
        if not body:
            raise unverified("Envoy shows no body; set with_request_body for this method")
        if not grpc:
            # A later filter, or the upstream, may make the same call of it.
            raise unverified("the body is not that of gRPC")
        for data in messages_in(body):
            try:
                message = message_type.FromString(data)
            except DecodeError:
                raise unverified("the message cannot be parsed") from None
            check(message, principal, principal.tenant)
