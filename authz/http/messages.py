"""The one gRPC message in the body of a request. Pure."""

from collections.abc import Sequence

from authz.policy.protos.isolation import unverified

MAX_BODY_BYTES = 262_144
"""How long a body may be to be checked."""

# A flag, and the length in four bytes: "gRPC over HTTP2", Length-Prefixed-Message.
_PREFIX = 5
_KINDS = (["application/grpc"], ["application/grpc+proto"])


def check_kind(kinds: Sequence[str], encodings: Sequence[str]) -> None:
    """Check that every server reads a body with these headers as protobuf.

    Args:
        kinds: the values of ``content-type``.
        encodings: the values of ``content-encoding``.

    Raises:
        PermissionDeniedError: some server may not; the reason is ``organization_unverified``.

    """
    if kinds not in _KINDS:
        # With "+json", or what an upstream takes for that, the body is no protobuf.
        raise unverified("the content-type is neither application/grpc nor application/grpc+proto")
    if any(value.lower() not in ("", "identity") for value in encodings):
        # A later filter, or the upstream, would decompress it.
        raise unverified("the body has a content-encoding")


def check_length(length: int) -> None:
    """Check that a body of so many bytes, or more, is short enough to be checked.

    Raises:
        PermissionDeniedError: it is not; the reason is ``organization_unverified``.

    """
    if length > MAX_BODY_BYTES:
        raise unverified(f"the body is longer than {MAX_BODY_BYTES} bytes")


def message_in(body: bytes) -> bytes:
    """Return the one gRPC message in a body.

    Raises:
        PermissionDeniedError: there is another message, or it is compressed, too long or not complete; the reason is
            ``organization_unverified``.

    """
    check_length(len(body))
    if body[0] != 0:
        raise unverified("the message is compressed")
    end = _PREFIX + int.from_bytes(body[1:_PREFIX])
    if end > len(body):
        raise unverified("the message is incomplete")
    if end < len(body):
        # Servers differ: most read the first message, some refuse both.
        raise unverified("more than one message is sent to a method that takes one")
    return body[_PREFIX:end]
