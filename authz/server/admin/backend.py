"""What the page asks of one process or of several workers: questions, answers and orders."""

from typing import Any, Literal, NamedTuple, Protocol

from authz.errors import ConfigError
from authz.judge.authorizer import Authorizer

Verb = Literal["suspend", "resume", "revoke", "reinstate"]
"""The first two concern an organization, the others a client."""

Json = dict[str, Any]

MAX_IN_FORCE = 10_000
"""How many organizations and clients may be suspended and revoked at run time, together."""

_CONTRARY: dict[Verb, Verb] = {"resume": "suspend", "reinstate": "revoke"}


class Order(NamedTuple):
    """An order of the operator.

    Args:
        verb: what is to be done.
        id: the organization or client that it concerns.

    """

    verb: Verb
    id: str

    def carry_out(self, authorizer: Authorizer) -> None:
        """Carry it out."""
        match self.verb:
            case "suspend":
                authorizer.suspend(self.id)
            case "resume":
                authorizer.resume(self.id)
            case "revoke":
                authorizer.revoke(client_id=self.id)
            case "reinstate":
                authorizer.reinstate(client_id=self.id)


class Question(NamedTuple):
    """A call to explain: the method and its caller, by a token or by names.

    Args:
        method: the full method name.
        token: a compact JWS, or ``""``.
        organization: that of the caller, if there is no token.
        client: that of the caller, if there is no token.
        scopes: what its token would grant.

    """

    method: str
    token: str = ""
    organization: str = ""
    client: str = ""
    scopes: tuple[str, ...] = ()


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
            ConfigError: there are too many in force.

        """


class Orders:
    """The orders in force, so that a worker that starts later can be told."""

    def __init__(self) -> None:
        self._in_force: dict[Order, None] = {}

    def note(self, order: Order) -> None:
        """Note ``order``.

        Raises:
            ConfigError: there are too many in force.

        """
        contrary = _CONTRARY.get(order.verb)
        if contrary is not None:
            self._in_force.pop(Order(contrary, order.id), None)
            return
        if len(self._in_force) >= MAX_IN_FORCE and order not in self._in_force:
            raise ConfigError(
                f"{MAX_IN_FORCE:,} of these in force already; take back some, or write them into the policy"
            )
        self._in_force[order] = None

    def in_force(self) -> list[Order]:
        """Return the orders to give to a new worker."""
        return list(self._in_force)
