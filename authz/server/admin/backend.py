"""What the page asks of one process or of several workers: questions, answers and orders."""

from typing import Any, NamedTuple, Protocol

from authz.judge.orders.order import Order

Json = dict[str, Any]


class Question(NamedTuple):
    """A call to explain: the method and its caller, by a token or by names.

    Args:
        method: the full method name.
        token: a compact JWS, or ``""``.
        organization: that of the caller, if there is no token.
        client: that of the caller, if there is no token.
        scopes: what its token would grant.
        verb: the HTTP method.

    """

    method: str
    token: str = ""
    organization: str = ""
    client: str = ""
    scopes: tuple[str, ...] = ()
    verb: str = "POST"


class Source(Protocol):
    """What decides, as the page sees it; every answer is plain data, and bounded."""

    async def decisions(self) -> Json:
        """Return the newest decisions, each with its id, and a cursor that names the last ones."""

    async def overview(self) -> Json:
        """Return totals, organizations, reasons, keys and workers."""

    async def policy(self) -> Json:
        """Return the policy in force, with how often each rule decided."""

    async def explain(self, question: Question) -> Json:
        """Return the verdict on an imagined call, and why; nothing is counted or used up for it."""

    async def order(self, order: Order) -> Json:
        """Carry out ``order`` everywhere, and return what holds now.

        Raises:
            ConfigError: it cannot be carried out.
            NotKeptError: it is in force, but may not outlive this server.

        """
