"""A request that names another organization is refused before its handler sees it, of every kind and codec."""

import base64
import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest
from protobuf import Oneof

from authz.call.principal import ANONYMOUS, Principal
from authz.connect.isolation import check_request
from authz.errors import ConfigError, PermissionDeniedError
from tests.connect.client import CONNECT, CONNECT_GET, CONNECT_HTTP2, CONNECT_JSON, GRPC, GRPC_WEB, OK, Way, bearer
from tests.connect.conftest import OTHER, TENANT, Serve
from tests.connect.messages import LIBRARIES, PROTOBUF_PY, Library
from tests.connect.servers import Server
from tests.connect.service import KINDS, PUBLIC, SERVICE
from tests.connect.wire import post
from tests.doubles import ORG

REACHED = [
    *((server, way) for server in (Server.UVICORN, Server.WAITRESS) for way in (CONNECT, CONNECT_JSON, GRPC_WEB)),
    (Server.WAITRESS, CONNECT_GET),
    (Server.UVICORN, CONNECT_GET),
    (Server.HYPERCORN, CONNECT_HTTP2),
    (Server.HYPERCORN, GRPC),
]
each_way = pytest.mark.parametrize(("server", "way"), REACHED, ids=lambda it: getattr(it, "name", it))
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda it: it.name)


@each_library
@each_way
@pytest.mark.parametrize("org_id", [ORG, TENANT, ""], ids=["own", "tenant", "none"])
def test_requests_of_the_own_organization_are_served(  # noqa: PLR0917 - two of them are fixtures
    serve: Serve, server: Server, way: Way, library: Library, org_id: str, token: str
) -> None:
    site = serve(server, library)
    for kind in way.kinds:
        outcome = site.ask(kind, way, [site.order(org=org_id)], headers=bearer(token))
        assert (outcome.code, outcome.notes[0]) == (OK, ORG)


@each_library
@each_way
def test_a_request_of_another_organization_is_not_seen(
    serve: Serve, server: Server, way: Way, library: Library, token: str
) -> None:
    site = serve(server, library)
    for kind in way.kinds:
        outcome = site.ask(kind, way, [site.order(org=OTHER, note="theirs")], headers=bearer(token))
        assert (outcome.code, outcome.message, outcome.reason) == (
            "permission_denied",
            "Permission denied",
            "ORGANIZATION_MISMATCH",
        )
        assert 'error="insufficient_scope"' in outcome.headers["www-authenticate"]
        assert OTHER not in str(outcome)
    assert site.witness.notes == []


@each_library
@pytest.mark.parametrize(("server", "way"), [(Server.HYPERCORN, CONNECT_HTTP2), (Server.WERKZEUG, CONNECT)])
@pytest.mark.parametrize("kind", ["client_stream", "bidi_stream"])
def test_the_second_message_of_a_stream_is_checked_as_well(  # noqa: PLR0917 - two of them are fixtures
    serve: Serve, server: Server, way: Way, kind: str, library: Library, token: str
) -> None:
    site = serve(server, library)
    requests = [site.order(org=org, note=note) for org, note in ((ORG, "1"), (OTHER, "2"), (ORG, "3"))]
    outcome = site.ask(kind, way, requests, headers=bearer(token))

    assert outcome.reason == "ORGANIZATION_MISMATCH"
    assert site.witness.notes == ["1"]
    assert site.told == [("decision", "", ORG), ("stream_ended", "organization_mismatch", ORG)]


@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
@pytest.mark.parametrize("kind", ["unary", "server_stream"])
def test_a_refused_request_is_one_decision(serve: Serve, server: Server, kind: str, token: str) -> None:
    site = serve(server)
    site.ask(kind, CONNECT, [site.order(org=OTHER)], headers=bearer(token))

    assert site.told == [("decision", "organization_mismatch", ORG)]


@each_library
@pytest.mark.parametrize("server", [Server.HYPERCORN, Server.WAITRESS], ids=lambda it: it.name)
def test_an_unknown_caller_may_name_no_organization(serve: Serve, server: Server, library: Library) -> None:
    site = serve(server, library)
    for kind in KINDS:
        way = CONNECT_HTTP2 if server is Server.HYPERCORN else CONNECT
        assert site.ask(kind, way, [site.order(org=ORG)], service=PUBLIC).reason == "ORGANIZATION_MISMATCH"
    assert site.witness.notes == []


@each_library
def test_a_request_with_too_much_to_look_at_is_not_seen(serve: Serve, library: Library, token: str) -> None:
    site = serve(Server.UVICORN, library)
    line = library.types["Line"](org=ORG)
    refused = site.ask("unary", CONNECT, [site.order(lines=[line] * 50_000)], headers=bearer(token))

    assert (refused.code, refused.reason) == ("permission_denied", "ORGANIZATION_UNVERIFIED")
    assert site.witness.sights == []
    assert site.ask("unary", CONNECT, [site.order(lines=[line] * 2000)], headers=bearer(token)).code == OK


# ---- What two parsers may read differently ----

JSON, PROTO = "application/json", "application/proto"


@each_library
@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
@pytest.mark.parametrize(
    "text",
    [
        f'{{"org": "{ORG}", "org": "{OTHER}", "note": "x"}}',
        f'{{"unknown": 1, "org": "{OTHER}", "note": "x"}}',
        f'{{"line": {{"org": "{OTHER}"}}, "note": "x"}}',
        f'{{"orgByRegion": {{"eu": "{OTHER}"}}, "note": "x"}}',
        f'{{"lineByName": {{"a": {{"org": "{OTHER}"}}}}, "note": "x"}}',
        f'{{"ownerOrg": "{OTHER}", "note": "x"}}',
        f'{{"owner_org": "{OTHER}", "note": "x"}}',
        f'{{"maybeOrg": "{OTHER}", "note": "x"}}',
        f'{{"parent": {{"parent": {{"orgs": ["{ORG}", "{OTHER}"]}}}}, "note": "x"}}',
        '{"org": "\\ud800", "note": "x"}',
        f'\ufeff{{"org": "{OTHER}", "note": "x"}}',
        f'{{"\\u006frg": "{OTHER}", "note": "x"}}',
    ],
)
def test_json_hides_no_organization(serve: Serve, server: Server, library: Library, text: str, token: str) -> None:
    site = serve(server, library)
    headers = [("content-type", JSON), ("authorization", f"Bearer {token}")]
    status, answer = post(site.port, f"/{SERVICE}/unary", headers, text.encode())

    assert status in (400, 403), answer
    assert site.witness.notes == []


@each_library
@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
def test_the_message_is_checked_that_the_handler_gets(
    serve: Serve, server: Server, library: Library, token: str
) -> None:
    """Of a field that is written twice, the last one counts, for the check as for the handler."""
    site = serve(server, library)
    bearing = [("authorization", f"Bearer {token}")]
    own, other = (library.by_name["proto"].encode(library.order(org=org)) for org in (ORG, OTHER))

    assert post(site.port, f"/{SERVICE}/unary", [("content-type", PROTO), *bearing], other + own)[0] == 200
    assert post(site.port, f"/{SERVICE}/unary", [("content-type", PROTO), *bearing], own + other)[0] == 403
    both = f'{{"org": "{OTHER}", "org": "{ORG}"}}'.encode()
    status = 200 if library is PROTOBUF_PY else 400
    assert post(site.port, f"/{SERVICE}/unary", [("content-type", JSON), *bearing], both)[0] == status
    assert len(site.witness.notes) == (2 if library is PROTOBUF_PY else 1)


@each_library
@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
def test_compression_hides_no_organization(serve: Serve, server: Server, library: Library, token: str) -> None:
    site = serve(server, library)
    message = library.by_name["proto"].encode(library.order(org=OTHER))
    headers = [("content-type", PROTO), ("content-encoding", "gzip"), ("authorization", f"Bearer {token}")]
    status, answer = post(site.port, f"/{SERVICE}/unary", headers, gzip.compress(message))

    assert (status, json.loads(answer)["code"]) == (403, "permission_denied")


@each_library
@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
@pytest.mark.parametrize("form", ["json", "proto", "compressed"])
def test_a_query_hides_no_organization(serve: Serve, server: Server, library: Library, form: str, token: str) -> None:
    site = serve(server, library)
    message = library.by_name["proto"].encode(library.order(org=OTHER))
    text = {
        "json": "encoding=json&message=" + quote(f'{{"org": "{OTHER}"}}'),
        "proto": f"encoding=proto&base64=1&message={_base64(message)}",
        "compressed": f"encoding=proto&base64=1&compression=gzip&message={_base64(gzip.compress(message))}",
    }[form]
    # The first of two counts, for the check as for the handler.
    query = f"connect=v1&{text}&message={_base64(b'')}"
    status, answer = post(site.port, f"/{SERVICE}/unary?{query}", [("authorization", f"Bearer {token}")], verb="GET")

    assert (status, json.loads(answer)["code"]) == (403, "permission_denied")
    assert site.witness.notes == []


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.mark.parametrize("server", [Server.UVICORN, Server.WAITRESS], ids=lambda it: it.name)
@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-16",
        "application/proto; x=application/json",
        "APPLICATION/JSON",
        "application/connect+proto",
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web+thrift",
        "application/x-protobuf",
        "text/plain",
        "",
    ],
)
def test_no_content_type_gets_a_request_past_the_check(serve: Serve, server: Server, kind: str, token: str) -> None:
    site = serve(server)
    headers = [("content-type", kind), ("authorization", f"Bearer {token}")]
    for body in (f'{{"org": "{OTHER}"}}'.encode(), site.order(org=OTHER).SerializeToString()):
        for data in (body, bytes(1) + len(body).to_bytes(4) + body):
            post(site.port, f"/{SERVICE}/unary", headers, data)

    assert site.witness.notes == []


# ---- Messages of protobuf-py ----

ACME = Principal(org_id=ORG, client_id="c", subject="c", tenant=TENANT)
ORDER, LINE, RING, LINK = (PROTOBUF_PY.types[name] for name in ("Order", "Line", "Ring", "Link"))


def holding(org: str) -> dict[str, Any]:
    """Return messages that name an organization, each at another place."""
    return {
        "field": ORDER(org=org),
        "list": ORDER(orgs=[ORG, org]),
        "map": ORDER(org_by_region={"eu": ORG, "us": org}),
        "oneof": ORDER(owner=Oneof("owner_org", org)),
        "oneof of messages": ORDER(owner=Oneof("owner_line", LINE(org=org))),
        "message": ORDER(line=LINE(org=org)),
        "list of messages": ORDER(lines=[LINE(), LINE(org=org)]),
        "map of messages": ORDER(line_by_name={"a": LINE(org=org)}),
        "recursive": ORDER(parent=ORDER(parent=ORDER(org=org))),
        "optional": ORDER(maybe_org=org),
        "mutually recursive": RING(link=LINK(ring=RING(link=LINK(org=org)))),
    }


PLACES = list(holding(ORG))


@pytest.mark.parametrize("place", PLACES)
def test_protobuf_py_names_organizations_at_every_place(place: str) -> None:
    for org in (ORG, TENANT, ""):
        check_request(holding(org)[place], ACME)
    for org, principal in ((OTHER, ACME), (ORG, ANONYMOUS)):
        with pytest.raises(PermissionDeniedError) as refused:
            check_request(holding(org)[place], principal)
        assert refused.value.reason == "organization_mismatch"


def test_protobuf_py_names_none_where_none_is_marked() -> None:
    check_request(ORDER(note=OTHER), ACME)
    check_request(PROTOBUF_PY.types["Plain"](org=OTHER), ACME)
    check_request(ORDER(), ANONYMOUS)
    check_request("no message at all", ACME)


@pytest.mark.parametrize(
    "message",
    [
        ORDER(orgs=[ORG] * 5000),
        ORDER(org_by_region={str(number): ORG for number in range(5000)}),
        ORDER(lines=[LINE()] * 5000),
        ORDER(parent=ORDER(orgs=[ORG] * 4095)),
    ],
    ids=["list", "map", "messages", "nested"],
)
def test_protobuf_py_is_looked_at_within_a_bound(message: Any) -> None:
    with pytest.raises(PermissionDeniedError) as refused:
        check_request(message, ACME)
    assert refused.value.reason == "organization_unverified"


def test_protobuf_py_marks_strings_only() -> None:
    with pytest.raises(ConfigError, match="for strings only"):
        check_request(PROTOBUF_PY.types["Wrong"](), ACME)


def test_a_type_that_is_marked_wrongly_is_not_served(serve: Serve, token: str) -> None:
    types = {**PROTOBUF_PY.types, "Order": PROTOBUF_PY.types["Wrong"]}
    library = Library("wrong", None, PROTOBUF_PY.by_name, types)
    site = serve(Server.UVICORN, library)
    outcome = site.ask("unary", CONNECT, [types["Order"](org=1)], headers=bearer(token))

    assert (outcome.code, outcome.reason) == ("internal", "INTERNAL")
    assert site.witness.sights == []
