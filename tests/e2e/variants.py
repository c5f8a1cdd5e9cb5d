"""Listeners that ask the authorization server in other ways than ours do, as operators' may."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from authz.call.metadata import TrustedMetadata
from authz.envoy.config import grpc_route, http_route, listener
from tests.doubles import AUDIENCE, ISSUER

PAYLOAD = "verified_payload"
"""Where jwt_authn leaves the claims that it has verified."""
SCOPED, NARROWED, MISSPELT, UNKNOWN_POLICY, FOREIGN = (
    f"/tests.Routes/{name}" for name in ("Scoped", "Narrowed", "Misspelt", "UnknownPolicy", "Foreign")
)
"""Methods whose routes ask something besides a token."""
PARTIAL_BYTES = 1024
"""How much of a request one of the listeners shows, if there is more."""
ADMITTED, LIMITED = "org_admitted", "org_limited"
"""Organizations that Envoy's RBAC filter lets pass; the second may make one call an hour."""

_TYPE = "type.googleapis.com/envoy."
_EXT_AUTHZ, _JWT_AUTHN = "envoy.filters.http.ext_authz", "envoy.filters.http.jwt_authn"


def variants(public: str, jwks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the listeners.

    Args:
        public: a method that the server takes for public.
        jwks: the keys of good tokens.

    """
    return [
        _routed(public),
        _organized(),
        _jwt_authn("vouched", jwks, authz="removing"),
        _jwt_authn("vouched-in-vain", jwks, authz="authz"),
        _with("blinkered", allowed_headers={"patterns": [{"prefix": "x-"}]}),
        _with("blindfolded", disallowed_headers={"patterns": [{"exact": "authorization"}]}),
        _with("shadow", shadow_mode=True),
        _with("buffering", with_request_body={"max_request_bytes": 1024, "allow_partial_message": True}),
        _with(
            "partial",
            with_request_body={
                "max_request_bytes": PARTIAL_BYTES,
                "allow_partial_message": True,
                "pack_as_bytes": True,
            },
        ),
        _with("hasty", **_in_haste()),
        _with("hasty-lenient", **_in_haste(), failure_mode_allow=True, failure_mode_allow_header_add=True),
    ]


def manager_of(listening: dict[str, Any]) -> dict[str, Any]:
    """Return what a listener says of HTTP."""
    [chain] = listening["filter_chains"]
    [manager] = chain["filters"]
    config: dict[str, Any] = manager["typed_config"]
    return config


def ext_authz_of(listening: dict[str, Any]) -> dict[str, Any]:
    """Return what a listener says of the authorization server."""
    [config] = [each["typed_config"] for each in manager_of(listening)["http_filters"] if each["name"] == _EXT_AUTHZ]
    found: dict[str, Any] = config
    return found


def _with(name: str, **options: Any) -> dict[str, Any]:
    listening = _listener(name, [grpc_route("grpc"), http_route("http")])
    ext_authz_of(listening).update(options)
    return listening


def _in_haste() -> dict[str, Any]:
    return {"grpc_service": {"envoy_grpc": {"cluster_name": "told"}, "timeout": "0.1s"}}


def _listener(name: str, routes: Sequence[Mapping[str, Any]], authz: str = "authz") -> dict[str, Any]:
    return listener(name, "127.0.0.1:0", routes, authz=authz, trusted=TrustedMetadata(), underscores="ALLOW")


# ---- Routes that ask something ----


def _routed(public: str) -> dict[str, Any]:
    asked = {
        SCOPED: {"scopes": "ledger:write ledger:read"},
        NARROWED: {"audience": "client_01JYNARROWER", "scopes": "ledger:write"},
        MISSPELT: {"scope": "ledger:write"},
        UNKNOWN_POLICY: {"policy": "partners"},
        FOREIGN: {"virtual_host": "ledger"},
        public: {"audience": AUDIENCE},
    }
    routes = [
        {"match": {"path": path}, "route": {"cluster": "grpc"}, **_asking(extensions)}
        for path, extensions in asked.items()
    ]
    return _listener("routed", routes)


def _asking(extensions: Mapping[str, str]) -> dict[str, Any]:
    per_route = {
        "@type": _TYPE + "extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": {"context_extensions": dict(extensions)},
    }
    return {"typed_per_filter_config": {_EXT_AUTHZ: per_route}}


# ---- jwt_authn in front, which keeps the token ----


def _jwt_authn(name: str, jwks: Mapping[str, Any], authz: str) -> dict[str, Any]:
    listening = _listener(name, [grpc_route("grpc"), http_route("http")], authz)
    ext_authz_of(listening)["metadata_context_namespaces"] = [_JWT_AUTHN]
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps(jwks)},
        # Without it jwt_authn also takes a token from the query (RFC 9700 section 4.3.2).
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": False,
        "payload_in_metadata": PAYLOAD,
    }
    # What jwt_authn refuses is left to the server: with its token, or without one that anybody has verified.
    either = {"requires_any": {"requirements": [{"provider_name": "issuer"}, {"allow_missing_or_failed": {}}]}}
    config = {
        "@type": _TYPE + "extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"issuer": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": either}],
    }
    manager_of(listening)["http_filters"].insert(0, {"name": _JWT_AUTHN, "typed_config": config})
    return listening


# ---- Filters behind, which go by the organization ----


def _organized() -> dict[str, Any]:
    listening = _listener("organized", [grpc_route("grpc"), http_route("http")])
    manager_of(listening)["http_filters"][1:1] = [_rbac(), _rate_limit()]
    return listening


def _rbac() -> dict[str, Any]:
    def is_organization(name: str) -> dict[str, Any]:
        path = [{"key": "organization"}]
        return {"metadata": {"filter": _EXT_AUTHZ, "path": path, "value": {"string_match": {"exact": name}}}}

    policy = {"permissions": [{"any": True}], "principals": list(map(is_organization, (ADMITTED, LIMITED)))}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": _TYPE + "extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"organizations": policy}},
        },
    }


def _rate_limit() -> dict[str, Any]:
    def bucket(tokens: int) -> dict[str, Any]:
        return {"max_tokens": tokens, "tokens_per_fill": tokens, "fill_interval": "3600s"}

    all_of_them = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    path = [{"key": "organization"}]
    action = {"metadata": {"descriptor_key": "organization", "metadata_key": {"key": _EXT_AUTHZ, "path": path}}}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": _TYPE + "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "organizations",
            "token_bucket": bucket(1_000_000),
            "filter_enabled": all_of_them,
            "filter_enforced": all_of_them,
            "rate_limits": [{"actions": [action]}],
            "descriptors": [
                {"entries": [{"key": "organization", "value": LIMITED}], "token_bucket": bucket(1)},
            ],
        },
    }
