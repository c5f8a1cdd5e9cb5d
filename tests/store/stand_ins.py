"""What stands in for the way to the store, where a test says what comes back, and when."""

from collections.abc import Iterable
from typing import Any

from authz import Principal
from authz.store.trips import Request
from tests.doubles import CLIENT, ORG


class Way:
    """Trips that a test makes: it takes requests, and the test answers them."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.is_answering = self.is_open = True
        self.store = self

    def key(self, name: str) -> str:
        return f"authz:{name}"

    def send(self, request: Request) -> None:
        self.requests.append(request)

    def answer(self, *answers: Any) -> None:
        """Answer what was asked first, and so on."""
        for answer in answers:
            self.requests.pop(0).then(answer)

    def close(self) -> None:
        self.is_answering = self.is_open = False

    @property
    def asked(self) -> list[tuple[int, int]]:
        """How many calls each request for a lease asks for at the most, and how many it tells of, or gives back."""
        return [(int(most), int(owed)) for _gap, _burst, most, owed in _arguments(self.requests)]


def _arguments(requests: Iterable[Request]) -> Iterable[Any]:
    return (request.args for request in requests)


class Stream:
    """Notes why it is ended."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def end(self, error: Exception) -> None:
        self.reasons.append(getattr(error, "reason", ""))


def principal(org_id: str = ORG) -> Principal:
    return Principal(org_id=org_id, client_id=CLIENT, subject=CLIENT)
