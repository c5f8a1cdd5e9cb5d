"""CPU time of verifying tokens, compared with the signature alone, and with other libraries that do the same checks."""

import base64
import gc
import json
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jwt as pyjwt
from authlib.jose import JsonWebKey, JsonWebToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet as JoserfcKeySet
from jwcrypto.jwk import JWK, JWKSet
from jwcrypto.jwt import JWT

from authz import Authorizer, AuthzError, Call, Policy
from authz.runtime.flow import run
from benchmarks.material import AUDIENCE, ISSUER, claims, signing_key, verifier

ROUNDS, TOKENS, REPEATS = 9, 300, 3000
_POLICY: dict[str, Any] = {"name": "p", "allow_rules": [{"name": "all"}]}
_QUOTA = {**_POLICY, "quotas": {"large": {"requests_per_second": 1_000_000}}, "default_quota": "large"}
_REQUIRED = ["iss", "aud", "sub", "exp", "iat", "org_id"]

Check = Callable[[str], object]


def measure() -> dict[str, object]:
    """Return the figures of every algorithm, and those that do not depend on one."""
    return {
        **{algorithm: _cold(algorithm) for algorithm in ("RS256", "ES256")},
        "cached": _cached(),
        "memory_of_10000_principals": _memory(),
        "import_authz_ms": _import_time(),
    }


def _cold(algorithm: str) -> dict[str, object]:
    key = signing_key(algorithm)
    tokens = [key.sign(claims(serial)) for serial in range(TOKENS)]
    jwk = key.public_jwk()
    checks: dict[str, Callable[[], Check]] = {
        "openssl": lambda: _openssl(jwk, algorithm),
        # A new one for every round, so that no token is remembered.
        "authz": lambda: verifier(key).verify,
        "pyjwt": lambda: _pyjwt(jwk, algorithm),
        "joserfc": lambda: _joserfc(jwk, algorithm),
        "jwcrypto": lambda: _jwcrypto(jwk, algorithm),
        "authlib": lambda: _authlib(jwk, algorithm),
    }
    times = _in_turn({name: (lambda make=make: make()) for name, make in checks.items()}, tokens)
    return {
        "cpu_us": {name: round(median(row), 1) for name, row in times.items()},
        "cpu_us_spread": {name: [round(min(row), 1), round(max(row), 1)] for name, row in times.items()},
        "authz / other": {
            name: round(median(ours / theirs for ours, theirs in zip(times["authz"], row, strict=True)), 2)
            for name, row in times.items()
            if name != "authz"
        },
    }


def _in_turn(makers: dict[str, Callable[[], Check]], tokens: Sequence[str]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(ROUNDS + 1):
        for name, make in makers.items():
            check = make()
            gc.collect()
            started = time.process_time()
            for token in tokens:
                check(token)
            if turn:  # The first round warms up.
                times[name].append((time.process_time() - started) / len(tokens) * 1e6)
    return times


def _openssl(jwk: dict[str, Any], algorithm: str) -> Check:
    public: Any = JWK(**jwk).get_op_key("verify")

    def check(token: str) -> None:
        signing_input, _, signature = token.rpartition(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        if algorithm == "RS256":
            public.verify(raw, signing_input.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = (int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
            public.verify(encode_dss_signature(*numbers), signing_input.encode(), ec.ECDSA(hashes.SHA256()))

    return check


def openssl_us(algorithm: str, count: int) -> float:
    """Return the CPU microseconds of one verification by OpenSSL alone."""
    key = signing_key(algorithm)
    check, token = _openssl(key.public_jwk(), algorithm), key.sign(claims())
    return _per_call(lambda: check(token), count)


def _pyjwt(jwk: dict[str, Any], algorithm: str) -> Check:
    key = pyjwt.PyJWK(jwk)
    options: Any = {"require": _REQUIRED}
    return lambda token: pyjwt.decode(
        token, key, algorithms=[algorithm], issuer=ISSUER, audience=AUDIENCE, leeway=10, options=options
    )


def _joserfc(jwk: dict[str, Any], algorithm: str) -> Check:
    keys = JoserfcKeySet.import_key_set({"keys": [jwk]})  # type: ignore[typeddict-item]
    registry = joserfc_jwt.JWTClaimsRegistry(
        leeway=10,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        **{name: {"essential": True} for name in ("sub", "exp", "iat", "org_id")},
    )
    return lambda token: registry.validate(joserfc_jwt.decode(token, keys, algorithms=[algorithm]).claims)


def _jwcrypto(jwk: dict[str, Any], algorithm: str) -> Check:
    keys = JWKSet.from_json(json.dumps({"keys": [jwk]}))
    expected = {"iss": ISSUER, "aud": AUDIENCE, "sub": None, "exp": None, "iat": None, "org_id": None}
    return lambda token: JWT(jwt=token, key=keys, algs=[algorithm], check_claims=expected, expected_type="JWS")


def _authlib(jwk: dict[str, Any], algorithm: str) -> Check:
    keys = JsonWebKey.import_key_set({"keys": [jwk]})
    reader = JsonWebToken([algorithm])
    options = {
        "iss": {"essential": True, "value": ISSUER},
        "aud": {"essential": True, "value": AUDIENCE},
        **{name: {"essential": True} for name in ("sub", "exp", "iat", "org_id")},
    }
    return lambda token: reader.decode(token, keys, claims_options=options).validate(leeway=10)


def _cached() -> dict[str, object]:
    key = signing_key()
    token = key.sign(claims())
    authorizer = Authorizer(verifier(key))
    under_policy, counting = (
        Authorizer(verifier(key), policy=Policy.from_document(data)) for data in (_POLICY, _QUOTA)
    )
    call = Call(method="/authz.demo.v1.LedgerService/PostEntry", metadata=_metadata(token))
    malformed = Call(method=call.method, metadata=_metadata("a" * len(token)))
    pyjwt_check = _pyjwt(key.public_jwk(), "RS256")

    def authorize() -> None:
        run(authorizer.authorize(call))

    def authorize_by_policy() -> None:
        run(under_policy.authorize(call))

    def authorize_with_quota() -> None:
        run(counting.authorize(call))

    def refuse() -> None:
        try:
            run(authorizer.authorize(malformed))
        except AuthzError:
            return
        raise AssertionError("a malformed token was accepted")

    authorize()
    names = "authorize", "by_policy", "with_quota", "pyjwt", "refuse_malformed", "authorize_8_threads"
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        times["authorize"].append(_per_call(authorize, REPEATS))
        times["by_policy"].append(_per_call(authorize_by_policy, REPEATS))
        times["with_quota"].append(_per_call(authorize_with_quota, REPEATS))
        times["pyjwt"].append(_per_call(lambda: pyjwt_check(token), REPEATS // 10))
        times["refuse_malformed"].append(_per_call(refuse, REPEATS))
        times["authorize_8_threads"].append(_per_call_in_threads(authorize, REPEATS, 8))
    figures = {name: median(row) for name, row in times.items()}
    return {
        "cpu_us": {name: round(value, 2) for name, value in figures.items()},
        "pyjwt / authorize": round(figures["pyjwt"] / figures["authorize"], 1),
        "by_policy / authorize": round(figures["by_policy"] / figures["authorize"], 2),
        "with_quota / by_policy": round(figures["with_quota"] / figures["by_policy"], 2),
        "refuse_malformed / authorize": round(figures["refuse_malformed"] / figures["authorize"], 2),
        "8 threads / 1 thread": round(figures["authorize_8_threads"] / figures["authorize"], 2),
    }


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    return (("user-agent", "grpc-python/1.85.1"), ("authorization", f"Bearer {token}"), ("x-request-id", "7f3a"))


def _per_call(action: Callable[[], object], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        action()
    return (time.process_time() - started) / count * 1e6


def _per_call_in_threads(action: Callable[[], object], count: int, number: int) -> float:
    def work() -> None:
        for _ in range(count):
            action()

    threads = [threading.Thread(target=work) for _ in range(number)]
    started = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - started) / (count * number) * 1e6


def _memory() -> dict[str, object]:
    # An elliptic key, only because it signs 10,000 tokens faster.
    key = signing_key("ES256")
    tokens = [key.sign(claims(serial)) for serial in range(10_000)]
    keeper = verifier(key)
    gc.collect()
    tracemalloc.start()
    for token in tokens:
        keeper.verify(token)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"mib": round(size / 2**20, 1), "bytes_per_entry": round(size / len(tokens))}


def _import_time() -> float:
    program = "import time; started = time.perf_counter(); import authz; print(time.perf_counter() - started)"
    runs = [
        float(subprocess.check_output([sys.executable, "-c", program], text=True))  # noqa: S603 - our own program
        for _ in range(ROUNDS)
    ]
    return round(median(runs) * 1e3)
