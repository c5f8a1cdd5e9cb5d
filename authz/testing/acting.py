"""A caller for handlers that a test calls itself, without a server and without a token."""

import functools
import inspect
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import Any, TypeVar, cast

from authz.call.call import Entry
from authz.call.metadata import TrustedMetadata
from authz.call.principal import ANONYMOUS, Principal, current_principal, reset_current_principal, set_current_principal
from authz.testing.claims import CLIENT, claims_of
from authz.testing.guard import check_tested
from authz.token.claims import ClaimRules, principal_from
from authz.token.profiles import PROFILES

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Of issuers of every kind; what could be no header is refused all the same.
_ANY = re.compile(".+")

# In the context, not in the object: threads and tasks may use one object at a time.
_entered: ContextVar[tuple[Token[Principal], ...]] = ContextVar("authz_testing_entered", default=())


class Acting:
    """Makes somebody the caller, in a ``with`` block or in the function that it decorates.

    Args:
        caller: returns who that is; called each time that the block is entered.

    """

    def __init__(self, caller: Callable[[], Principal]) -> None:
        self._caller = caller

    def __enter__(self) -> Principal:
        """Return the caller.

        Raises:
            RuntimeError: no test is running.
            ClaimError: a token could not name this caller.

        """
        check_tested("acting_as")
        caller = self._caller()
        _entered.set((*_entered.get(), set_current_principal(caller)))
        return caller

    def __exit__(self, *_: object) -> None:
        """Have the former caller be the caller again, or none if there was none."""
        if not _entered.get():
            raise RuntimeError("this block was entered in another context (contextvars), such as that of another task")
        *former, last = _entered.get()
        reset_current_principal(last)
        _entered.set(tuple(former))

    def __call__(self, function: _Function) -> _Function:
        """Return ``function`` with this caller, whenever it is called.

        Args:
            function: a function or a coroutine function.

        Raises:
            TypeError: a class or a generator, whose code runs when the call is over.

        """
        if inspect.isclass(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"acting_as cannot decorate {function.__name__}: only functions and coroutines;"
                " put 'with acting_as(…):' around what it does, or around what iterates over it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

            return cast(_Function, awaited)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return cast(_Function, called)


def acting_as(
    org_id: str | None = None,
    *,
    scopes: Collection[str] | str = (),
    client_id: str = CLIENT,
    tenant: str = "",
    claims: Mapping[str, Any] | None = None,
    principal: Principal | None = None,
) -> Acting:
    """Have :func:`authz.current_principal` return a caller, for handlers that a test calls itself.

    The caller is the one that a token with these claims names. Tasks that are started within see it too, and so does
    what ``asyncio.to_thread`` runs; other threads do not. What a server of the same test serves has its caller from
    its own token.

    Args:
        org_id: the organization; ``None`` for the unknown caller of a public method.
        scopes: the granted scopes, as a list or as one string.
        client_id: the M2M application.
        tenant: the API owner's own id for the organization.
        claims: laid over the usual claims, as WorkOS writes them; ``None`` removes one.
        principal: the caller itself, instead of all the others.

    Raises:
        TypeError: arguments that contradict each other.

    """
    others = bool(scopes or tenant or claims or client_id != CLIENT)
    if (principal is not None and org_id is not None) or (org_id is None and others):
        raise TypeError("acting_as: give an organization, perhaps with its scopes and so on, or a principal alone")
    if principal is not None or org_id is None:
        return Acting(lambda: principal or ANONYMOUS)

    def named() -> Principal:
        now = time.time()
        said = claims_of(PROFILES["workos"], org_id, now, scopes=scopes, client_id=client_id, changes=claims or {})
        audience = said.get("aud", ())
        # Of whichever issuer: the test says who calls, and nothing is refused here that an issuer could write.
        rules = ClaimRules(
            issuer=said.get("iss", ""),
            audiences=frozenset([audience] if isinstance(audience, str) else audience),
            allow_user_tokens=True,
            org_id=_ANY,
        )
        return replace(principal_from(said, rules, now), tenant=tenant)

    return Acting(named)


def anonymous() -> Acting:
    """Have :func:`authz.current_principal` return ``ANONYMOUS``, the unknown caller of a public method."""
    return acting_as(None)


def trusted_metadata(
    principal: Principal | None = None,
    *,
    sent: Iterable[tuple[str, str | bytes]] = (),
    names: TrustedMetadata | None = None,
) -> tuple[tuple[str, str | bytes], ...]:
    """Return what ``context.invocation_metadata()`` of a handler returns: what was sent, and then who calls.

    Args:
        principal: the caller; by default the one of :func:`acting_as`.
        sent: the caller's own metadata; what stands there under trusted names is removed.
        names: the trusted names, if they are not the usual ones.

    Raises:
        LookupError: no principal is given, and there is no caller.

    """
    caller = current_principal() if principal is None else principal
    entries = (Entry(*entry) for entry in sent)
    return (names or TrustedMetadata()).believed(entries, caller)
