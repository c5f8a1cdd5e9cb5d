"""HTTP/1.1 byte by byte, for what no client library sends."""

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any

PATIENCE = 120.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(target: str, path: str = "/whoami", headers: Iterable[tuple[str, str]] = (), *, verb: str = "GET") -> Answer:
    """Send ``path``, ``headers`` and the HTTP method ``verb`` exactly as they are."""
    host, _, port = target.rpartition(":")
    lines = [f"{verb} {path} HTTP/1.1", f"host: {target}", "connection: close", *[f"{k}: {v}" for k, v in headers]]
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        with HTTPResponse(connection, method=verb) as response:
            response.begin()
            names = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, names, response.read().decode())


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")
