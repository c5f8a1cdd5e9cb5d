"""Mistakes of whoever builds a server show while it is built, and never let a call in or hang it."""

from typing import Any

import grpc
import grpc.aio
import pytest

import interceptors
import interceptors.aio
from authz import Authorizer, ConfigError, Verifier
from tests.interceptors.client import bearer, call
from tests.interceptors.servers import Loop, channel_to, sync_server
from tests.interceptors.service import Witness, handlers, sync_behaviours

BOTH = pytest.mark.parametrize(
    "interceptor", [interceptors.AuthzInterceptor, interceptors.aio.AuthzInterceptor], ids=["grpc", "aio"]
)


@BOTH
@pytest.mark.parametrize("judge", [None, "https://acme.authkit.app", object(), Verifier])
def test_judge_must_be_one(interceptor: Any, judge: Any) -> None:
    with pytest.raises(ConfigError, match="a Verifier or an Authorizer is needed"):
        interceptor(judge)


@BOTH
@pytest.mark.parametrize(
    "name", ["Check", "", "/a b", "/a.B/C,/a.B/D", "grpc.health.v1.Health/Check", "/Check?x", "/a#b", "/a\n"]
)
def test_public_method_must_be_a_full_name(interceptor: Any, verifier: Verifier, name: str) -> None:
    with pytest.raises(ConfigError, match="public_methods"):
        interceptor(verifier, public_methods=[name])


@BOTH
def test_public_methods_are_the_authorizers_where_there_is_one(interceptor: Any, verifier: Verifier) -> None:
    with pytest.raises(ConfigError, match="give them to the Authorizer"):
        interceptor(Authorizer(verifier), public_methods=["/tests.Public/unary_unary"])


@BOTH
def test_everything_but_the_judge_goes_by_name(interceptor: Any, verifier: Verifier) -> None:
    with pytest.raises(TypeError):
        interceptor(verifier, ["/tests.Public/unary_unary"])


def test_aio_interceptor_lets_nobody_into_a_grpc_server(verifier: Verifier, kind: str, token: str) -> None:
    witness = Witness()
    served = handlers(sync_behaviours(witness), witness)
    with (
        sync_server(served, [interceptors.aio.AuthzInterceptor(verifier)]) as address,
        channel_to(address) as channel,
    ):
        outcomes = [call(channel, kind, metadata=bearer(token)) for _ in range(2)]

    assert [outcome.code for outcome in outcomes] == [grpc.StatusCode.UNKNOWN] * 2
    assert witness.sights == []


def test_grpc_interceptor_cannot_stand_in_an_aio_server(loop: Loop, verifier: Verifier) -> None:
    async def build() -> None:
        with pytest.raises(ValueError, match="Interceptor"):
            grpc.aio.server(interceptors=[interceptors.AuthzInterceptor(verifier)])

    loop.run(build())
