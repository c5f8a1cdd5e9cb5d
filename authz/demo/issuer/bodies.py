"""Bodies of requests to the development issuer, of a bounded length."""

from starlette.requests import ClientDisconnect, Request

MAX_BODY = 16_384
"""The most bytes of a request's body. The largest valid one is a form with a token."""


class BodyError(Exception):
    """A body cannot be read; one sentence for the client's developer, and its HTTP status."""

    def __init__(self, description: str, *, status: int) -> None:
        super().__init__(description)
        self.description, self.status = description, status


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        BodyError: it is too long, or the client has gone.

    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise BodyError(f"The body has more than {MAX_BODY} bytes.", status=413)
    except ClientDisconnect:
        raise BodyError("The body is not complete.", status=400) from None
    return bytes(body)
