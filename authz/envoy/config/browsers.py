"""The parts of Envoy's configuration for callers in browsers: CORS and gRPC-Web.

The order of the filters matters. ``cors`` stands before the check: it answers preflights, which never have a token, and
adds to refusals the headers that let pages read them. ``grpc_web`` stands after the check, which so sees the caller's
own content type, and answers in its form.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from authz.errors import ConfigError

_TYPE = "type.googleapis.com/envoy.extensions.filters.http."
GRPC_WEB = "application/grpc-web"
CORS = "envoy.filters.http.cors"
_CONTENT_TYPE = "envoy.filters.http.header_mutation.grpc_web_content_type"

METHODS = "GET, POST, PUT, PATCH, DELETE"
# The headers of gRPC-Web and Connect, and the token's.
REQUEST_HEADERS = (
    "authorization, content-type, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, connect-timeout-ms"
)
# Without the first three, clients of gRPC-Web do not learn what went wrong.
RESPONSE_HEADERS = "grpc-status, grpc-message, grpc-status-details-bin, www-authenticate, retry-after"
# The most that Chromium accepts.
MAX_AGE_SECONDS = 7200

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_NEVER_SENT = re.compile(r"http://.*:80|https://.*:443")


def check_origin(setting: str, origin: str) -> str:
    """Return ``origin`` if browsers would send it so (RFC 6454 section 6.1).

    Raises:
        ConfigError: they would not, or it stands for several; the message names ``setting``.

    """
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"{setting}: {origin!a} is not an origin; write SCHEME://HOST or SCHEME://HOST:PORT in lower case, without "
            "a path, such as https://app.example. There is no wildcard: name each origin"
        )
    if _NEVER_SENT.fullmatch(origin):
        raise ConfigError(f"{setting}: browsers leave out the port of {origin!a}, so it must not be written here")
    return origin


def around(
    check: Mapping[str, Any],
    *,
    before: Mapping[str, Any] | None = None,
    cors_origins: Sequence[str],
    grpc_web: bool,
) -> list[Mapping[str, Any]]:
    """Return the HTTP filter that asks the authorization server, with the filters around it, in order.

    Args:
        check: that filter.
        before: the one that decides which requests it asks about, if not about all.
        cors_origins: of the pages that may call from a browser.
        grpc_web: whether callers may speak gRPC-Web.

    """
    return [
        *([cors_filter()] if cors_origins else []),
        *([content_type_filter()] if grpc_web else []),
        *([] if before is None else [before]),
        check,
        *([grpc_web_filter()] if grpc_web else []),
    ]


def virtual_host(cors_origins: Sequence[str]) -> dict[str, Any]:
    """Return the parts of a virtual host for pages of these origins."""
    if not cors_origins:
        return {}
    return {"typed_per_filter_config": cors_policy(cors_origins), "response_headers_to_add": _varying()}


def cors_filter() -> dict[str, Any]:
    """Return the HTTP filter that stands before the check."""
    return {"name": CORS, "typed_config": {"@type": f"{_TYPE}cors.v3.Cors"}}


def cors_policy(origins: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of that filter for a virtual host's ``typed_per_filter_config``.

    Args:
        origins: of the pages that may call, as :func:`check_origin` accepts them.

    """
    return {
        CORS: {
            "@type": f"{_TYPE}cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": origin} for origin in origins],
            "allow_methods": METHODS,
            "allow_headers": REQUEST_HEADERS,
            "expose_headers": RESPONSE_HEADERS,
            "max_age": str(MAX_AGE_SECONDS),
        }
    }


def _varying() -> list[dict[str, Any]]:
    """Return the header that keeps caches from giving one origin the answer to another (Fetch, section 3.2.5)."""
    return [{"header": {"key": "vary", "value": "origin"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]


def content_type_filter() -> dict[str, Any]:
    """Return the HTTP filter before the check that does what :func:`content_type` says, on routes that have that."""
    return {"name": _CONTENT_TYPE, "typed_config": {"@type": f"{_TYPE}header_mutation.v3.HeaderMutation"}}


def content_type() -> dict[str, Any]:
    """Return the configuration of that filter for the ``typed_per_filter_config`` of a route of gRPC-Web.

    A refusal has no body, so Envoy removes its content type; without one, some clients do not read the status.
    """
    header = {"key": "content-type", "value": f"{GRPC_WEB}+proto"}
    added = {"append": {"header": header, "append_action": "ADD_IF_ABSENT"}}
    return {
        _CONTENT_TYPE: {
            "@type": f"{_TYPE}header_mutation.v3.HeaderMutationPerRoute",
            "mutations": {"response_mutations": [added]},
        }
    }


def grpc_web_filter() -> dict[str, Any]:
    """Return the HTTP filter that stands after the check."""
    return {"name": "envoy.filters.http.grpc_web", "typed_config": {"@type": f"{_TYPE}grpc_web.v3.GrpcWeb"}}
