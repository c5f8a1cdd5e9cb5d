"""A test says who calls the handlers that it calls itself; after the block everything is as it was."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from authz import ANONYMOUS, ClaimError, Principal, TokenExpiredError, TrustedMetadata, current_principal
from authz.call.call import Entry
from authz.testing import Acting, Issuer, acting_as, anonymous, trusted_metadata
from interceptors import AuthzInterceptor
from tests.doubles import PATIENCE
from tests.testing.echo import METHOD, serving

BOB = Principal(org_id="org_bob", client_id="client_bob", subject="client_bob")


def caller() -> str | None:
    """Return who calls; ``None`` where there is nobody at all."""
    try:
        return current_principal().org_id
    except LookupError:
        return None


async def caller_later() -> str | None:
    await asyncio.sleep(0)
    return caller()


def test_the_caller_is_there_in_the_block_and_gone_after_it() -> None:
    with acting_as("org_acme") as principal:
        assert current_principal() is principal
        assert principal.org_id == "org_acme"

    assert caller() is None


def test_blocks_nest_and_give_back_the_former_caller() -> None:
    with acting_as("org_acme") as former:
        with anonymous():
            assert current_principal() is ANONYMOUS
            with acting_as(principal=BOB):
                assert current_principal() is BOB
            assert current_principal() is ANONYMOUS
        assert current_principal() is former


def test_an_error_in_the_block_leaves_no_caller_behind() -> None:
    with pytest.raises(ZeroDivisionError), acting_as("org_acme"):
        raise ZeroDivisionError

    assert caller() is None


def test_one_object_may_be_entered_within_itself() -> None:
    acting = acting_as("org_acme")

    with acting:
        with acting:
            pass
        assert caller() == "org_acme"

    assert caller() is None


def test_tasks_of_the_block_see_its_caller_and_outlive_it() -> None:
    async def main() -> list[str | None]:
        with acting_as("org_acme"):
            task = asyncio.create_task(caller_later())
            seen = [await caller_later(), await asyncio.to_thread(caller)]
        return [*seen, await task, caller()]

    assert asyncio.run(main()) == ["org_acme", "org_acme", "org_acme", None]


def test_tasks_use_one_object_at_a_time() -> None:
    """The first to enter it is the first to leave it, while the other is inside."""
    acting = acting_as("org_acme")

    async def inside(entered: asyncio.Event, may_leave: asyncio.Event, left: asyncio.Event) -> list[str | None]:
        with acting:
            entered.set()
            await may_leave.wait()
            seen = [caller()]
        left.set()
        return [*seen, caller()]

    async def main() -> list[list[str | None]]:
        first, second, first_left, second_left = (asyncio.Event() for _ in range(4))
        return await asyncio.gather(inside(first, second, first_left), inside(second, first_left, second_left))

    assert asyncio.run(main()) == [["org_acme", None]] * 2


def test_threads_use_one_object_at_a_time_and_see_only_their_own_caller() -> None:
    acting, seen, together = acting_as("org_acme"), [], threading.Barrier(3, timeout=PATIENCE)

    def thread(enters: bool) -> None:  # noqa: FBT001 - by position, as threads want it
        if enters:
            with acting:
                together.wait()
                seen.append(caller())
                together.wait()
        else:
            together.wait()
            seen.append(caller())
            together.wait()
        seen.append(caller())

    threads = [threading.Thread(target=thread, args=[enters]) for enters in (True, True, False)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(map(str, seen)) == ["None"] * 4 + ["org_acme"] * 2


def test_a_function_that_is_decorated_has_the_caller_each_time() -> None:
    @acting_as("org_acme")
    def handler(request: str, *, suffix: str) -> str:
        """Say who calls."""
        return f"{request} {caller()} {suffix}"

    assert [handler("a", suffix="b"), handler("c", suffix="d")] == ["a org_acme b", "c org_acme d"]
    assert (handler.__name__, handler.__doc__, list(inspect.signature(handler).parameters)) == (
        "handler",
        "Say who calls.",
        ["request", "suffix"],
    )
    assert caller() is None


def test_a_coroutine_function_that_is_decorated_stays_one() -> None:
    decorated = acting_as("org_acme")(caller_later)

    async def main() -> list[str | None]:
        return [*await asyncio.gather(decorated(), caller_later(), decorated()), caller()]

    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(main()) == ["org_acme", None, "org_acme", None]


def generator() -> Any:
    yield caller()


async def async_generator() -> Any:
    yield caller()


class Class:
    pass


@pytest.mark.parametrize("function", [generator, async_generator, Class])
def test_what_would_run_after_the_block_cannot_be_decorated(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=rf"cannot decorate {function.__name__}: .* put 'with acting_as"):
        acting_as("org_acme")(function)


def test_a_block_that_ends_in_another_context_says_so() -> None:
    acting = acting_as("org_acme")
    contextvars.copy_context().run(acting.__enter__)

    with pytest.raises(RuntimeError, match="entered in another context"):
        acting.__exit__(None, None, None)


def test_the_caller_is_the_one_that_a_token_with_the_same_claims_names() -> None:
    issuer, said = Issuer(), {"scopes": ["ledger:read", "ledger:write"], "client_id": "client_1"}
    verified = issuer.verifier().verify(issuer.token("org_acme", plan={"name": "gold"}, **said))

    with acting_as("org_acme", claims={"plan": {"name": "gold"}}, **said) as acting:
        pass

    def constant(principal: Principal) -> tuple[Principal, dict[str, Any]]:
        changing = {"token_id": "", "issued_at": None, "expires_at": 0.0, "key_id": "", "claims": {}}
        claims = {name: value for name, value in principal.claims.items() if name not in ("jti", "iat", "exp")}
        return replace(principal, **changing), claims

    assert constant(acting) == constant(verified)
    assert acting.claims["plan"]["name"] == "gold"
    assert acting.scopes == {"ledger:read", "ledger:write"}
    assert acting.issued_at is not None
    assert acting.expires_at - acting.issued_at == 300


def test_the_caller_is_as_young_as_the_block() -> None:
    """It is made when the block is entered: a decorator stands at the beginning of a long run."""
    acting = acting_as("org_acme")

    with acting as first, acting as second:
        assert first.token_id != second.token_id


def test_scopes_may_be_one_text() -> None:
    with acting_as("org_acme", scopes="ledger:read ledger:write") as principal:
        assert principal.scopes == {"ledger:read", "ledger:write"}


def test_the_tenant_is_the_owners_own_id() -> None:
    with acting_as("org_acme", tenant="acme-1") as principal:
        assert principal.tenant == "acme-1"
        assert "acme-1" not in principal.claims.values()


def test_claims_may_be_any_that_an_issuer_writes() -> None:
    claims = {"sub": "user_1", "iss": "https://other.example", "aud": ["a", "b"], "jti": None}

    with acting_as("tenant/7", claims=claims) as principal:
        assert (principal.org_id, principal.subject, principal.issuer) == (
            "tenant/7",
            "user_1",
            "https://other.example",
        )
        assert (principal.audience, principal.token_id) == (("a", "b"), "")


@pytest.mark.parametrize(
    ("org_id", "claims", "error"),
    [
        ("", {}, ClaimError),
        ("org_acme\r\n", {}, ClaimError),
        ("org_acme", {"sub": None}, ClaimError),
        ("org_acme", {"iss": None}, ClaimError),
        ("org_acme", {"aud": None}, ClaimError),
        ("org_acme", {"exp": 1}, TokenExpiredError),
    ],
)
def test_a_caller_that_no_token_names_is_refused(org_id: str, claims: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error), acting_as(org_id, claims=claims):
        pytest.fail("the block was entered")

    assert caller() is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"org_id": "org_acme", "principal": BOB},
        {"principal": BOB, "scopes": ["a"]},
        {"scopes": ["a"]},
        {"tenant": "a"},
        {"claims": {"a": 1}},
        {"client_id": "a"},
    ],
    ids="+".join,
)
def test_arguments_that_contradict_each_other_are_an_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="a principal alone"):
        acting_as(**arguments)


@pytest.mark.parametrize("nobody", [acting_as(None), acting_as(), anonymous()])
def test_without_an_organization_the_caller_is_anonymous(nobody: Acting) -> None:
    with nobody:
        assert current_principal() is ANONYMOUS


def test_where_no_caller_is_the_error_names_the_remedy() -> None:
    with pytest.raises(LookupError, match=r"with authz\.testing\.acting_as"):
        contextvars.Context().run(current_principal)


# ---- Metadata ----


def test_metadata_is_what_a_handler_behind_the_interceptor_reads() -> None:
    issuer = Issuer()
    sent = [("x-request-id", "1"), ("x-org-id", "org_forged")]
    token = issuer.metadata("org_acme", scopes=["a"])

    with serving(AuthzInterceptor(issuer.verifier())) as (channel, seen):
        channel.unary_unary(METHOD)(b"", metadata=[*sent, *token], timeout=PATIENCE)

    read = [(key, value) for key, value in seen[0].metadata if key != "user-agent"]
    assert list(trusted_metadata(seen[0].principal, sent=[*sent, *token])) == read
    assert ("x-org-id", "org_acme") in read


def test_metadata_is_of_the_acting_caller_under_names_of_ones_own() -> None:
    with acting_as("org_acme"):
        [first, *_] = trusted_metadata(names=TrustedMetadata(org_id="x-acme-organization"))

    assert first == Entry("x-acme-organization", "org_acme")


def test_metadata_of_nobody_is_what_was_sent_without_what_is_forged() -> None:
    with anonymous():
        assert trusted_metadata(sent=[("a", "b"), ("x-org-id", "org_forged")]) == (("a", "b"),)
    with pytest.raises(LookupError):
        trusted_metadata()


# ---- Servers ----


def test_what_a_server_serves_has_its_caller_from_its_token() -> None:
    """Although the server was started, and is called, by somebody who acts."""
    issuer = Issuer()

    with (
        acting_as("org_acme"),
        serving(AuthzInterceptor(issuer.verifier(), public_methods=["/echo/Public"])) as (channel, seen),
    ):
        channel.unary_unary(METHOD)(b"", metadata=issuer.metadata("org_globex"), timeout=PATIENCE)
        channel.unary_unary("/echo/Public")(b"", timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(METHOD)(b"", timeout=PATIENCE)

    assert [each.principal.org_id for each in seen] == ["org_globex", ""]
