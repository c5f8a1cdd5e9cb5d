"""The issuer of :mod:`benchmarks.soak`, as a process of its own, so that it answers while the load is busy.

It prints where it is and whom it knows; for each line of its standard input it signs with another key from then on,
and prints new tokens; and it ends with its standard input.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from authz.demo.issuer.program import Issuer, IssuerServer
from benchmarks.material import signing_key

ALGORITHM = "ES256"
APPLICATIONS, TOKENS = 2, 50


class OtherIssuer:
    """The issuer, for the process that started it.

    Args:
        process: the one that runs this module.

    Attributes:
        url: what tokens name.
        audience: the same.
        applications: the client ids that it signs for.
        tokens: of each of them, signed with the newest key.

    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()
        told = self._line()
        self.url: str = told["url"]
        self.audience: str = told["audience"]
        self.applications: list[str] = told["applications"]
        self.tokens: list[list[str]] = self._line()

    def rotate(self) -> None:
        """Have it sign with another key, and take the tokens of that."""
        with self._lock:
            assert self._process.stdin is not None  # noqa: S101 - asked for below
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            self.tokens = self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        return json.loads(self._process.stdout.readline())


@contextmanager
def issuing() -> Iterator[OtherIssuer]:
    """Run an issuer until the end of the block."""
    command = [sys.executable, "-m", "benchmarks.soak_issuer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        try:
            yield OtherIssuer(process)
        finally:
            process.kill()


def _main() -> None:
    with IssuerServer(Issuer(keys=[signing_key(ALGORITHM)])) as server:
        issuer = server.issuer
        clients = [one.client_id for one in issuer.directory.applications][:APPLICATIONS]
        _tell({"url": server.url, "audience": issuer.directory.audience, "applications": clients})
        _tell([[issuer.mint(one) for _ in range(TOKENS)] for one in clients])
        for _ in sys.stdin:
            issuer.rotate()
            _tell([[issuer.mint(one) for _ in range(TOKENS)] for one in clients])


def _tell(what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    _main()
