"""Requests byte by byte."""

import http.client
from collections.abc import Sequence


def post(
    port: int, target: str, headers: Sequence[tuple[str, str]], body: bytes = b"", *, verb: str = "POST"
) -> tuple[int, bytes]:
    """Make a request over HTTP/1.1; return status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(verb, target)
        for name, value in headers:
            connection.putheader(name, value)
        if verb == "POST":
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body if verb == "POST" else None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
