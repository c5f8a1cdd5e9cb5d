"""Which organizations a request may name, at any place of its message."""

import contextlib
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from authz.call.principal import ANONYMOUS, Principal
from authz.errors import ConfigError, PermissionDeniedError
from authz.policy.protos.isolation import MAX_LOOKS, check_message, places_of
from tests.marked import TYPES

OWN, TENANT, OTHER = "org_own", "customer-7", "org_other"
CALLER = Principal(org_id=OWN, client_id="client", subject="client")

Order, Line, Ring, Plain, Wrong = (TYPES[name] for name in ("Order", "Line", "Ring", "Plain", "Wrong"))


def is_allowed(message: Any, principal: Principal = CALLER, tenant: str = TENANT) -> bool:
    try:
        check_message(message, principal, tenant)
    except PermissionDeniedError:
        return False
    return True


def order(**fields: Any) -> Message:
    return json_format.ParseDict(fields, Order())


PLACES = [
    pytest.param(lambda org: {"org": org}, id="field"),
    pytest.param(lambda org: {"orgs": [OWN, org]}, id="element"),
    pytest.param(lambda org: {"org_by_region": {"eu": OWN, "us": org}}, id="value of a map"),
    pytest.param(lambda org: {"owner_org": org}, id="oneof"),
    pytest.param(lambda org: {"owner_line": {"org": org}}, id="message in a oneof"),
    pytest.param(lambda org: {"maybe_org": org}, id="optional field"),
    pytest.param(lambda org: {"line": {"note": "n", "org": org}}, id="nested"),
    pytest.param(lambda org: {"lines": [{"org": OWN}, {"org": org}]}, id="element that is a message"),
    pytest.param(lambda org: {"line_by_name": {"a": {"org": org}}}, id="value of a map that is a message"),
    pytest.param(lambda org: {"parent": {"parent": {"lines": [{"org": org}]}}}, id="type in itself"),
]


@pytest.mark.parametrize("at", PLACES)
def test_only_the_callers_organization_may_be_named(at):
    assert is_allowed(order(**at(OWN)))
    assert is_allowed(order(**at(TENANT)))
    assert is_allowed(order(**at("")))
    assert not is_allowed(order(**at(OTHER)))
    # Neither a part nor another spelling is the same.
    assert not is_allowed(order(**at(OWN[:-1])))
    assert not is_allowed(order(**at(OWN.upper())))
    assert not is_allowed(order(**at(f" {OWN}")))


def test_refusal_has_a_reason_and_tells_no_name():
    with pytest.raises(PermissionDeniedError) as refused:
        check_message(Line(org=OTHER), CALLER)

    assert refused.value.reason == "organization_mismatch"
    assert OTHER not in str(refused.value)


@pytest.mark.parametrize("at", PLACES)
def test_without_a_tenant_only_the_organization_is_left(at):
    assert not is_allowed(order(**at(TENANT)), tenant="")


@pytest.mark.parametrize("at", PLACES)
def test_unknown_caller_has_no_organization_to_name(at):
    assert not is_allowed(order(**at(OTHER)), ANONYMOUS, "")


def test_what_is_not_marked_may_be_anything():
    extra = Packed()
    extra.Pack(Line(org=OTHER))
    message = order(note=OTHER, person=OTHER)
    message.extra.CopyFrom(extra)

    assert is_allowed(message)
    assert is_allowed(Plain(org=OTHER, next=Plain(org=OTHER)))


def test_types_that_hold_one_another_are_looked_through():
    assert not is_allowed(json_format.ParseDict({"link": {"ring": {"link": {"org": OTHER}}}}, Ring()))
    assert is_allowed(json_format.ParseDict({"link": {"ring": {"link": {"org": OWN}}}}, Ring()))


def test_deepest_message_that_can_be_read_is_looked_through():
    data = Order(org=OTHER).SerializeToString()
    for _ in range(98):
        data = Order(parent=Order.FromString(data)).SerializeToString()

    assert not is_allowed(Order.FromString(data))


class Ids:
    """The ids that may be named; counts how often something is compared with them."""

    def __init__(self) -> None:
        self.looks = 0

    def __contains__(self, one: object) -> bool:
        self.looks += 1
        return one in ("", OWN)


def looks_at(message: Message) -> int:
    """Return how often a name of a message is compared before it is let through or refused."""
    ids: Any = Ids()
    places = places_of(type(message))
    assert places is not None
    with contextlib.suppress(PermissionDeniedError):
        places.check_fields(message, ids, MAX_LOOKS)
    return int(ids.looks)


def many_in_a_map() -> Message:
    message = Order()
    for number in range(100_000):
        message.line_by_name[str(number)].org = OWN
    return message


def with_long_keys() -> Message:
    return Order(org_by_region={"k" * 10_000 + str(number): OWN for number in range(1000)})


def nested(depth: int) -> Message:
    message = Order(lines=[Line(org=OWN)] * 50)
    for _ in range(depth):
        message = Order(parent=message, lines=[Line(org=OWN)] * 50)
    return message


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Order(lines=[Line()] * 2_000_000), id="messages"),
        pytest.param(lambda: Order(lines=[Line(org=OWN)] * 2049), id="hardly too many messages"),
        pytest.param(lambda: Order(orgs=[OWN] * 2_000_000), id="elements"),
        pytest.param(many_in_a_map, id="map"),
        pytest.param(with_long_keys, id="long keys"),
        pytest.param(lambda: nested(90), id="nested"),
    ],
)
def test_message_with_too_much_to_look_at_is_refused_without_looking(make):
    message = make()
    with pytest.raises(PermissionDeniedError) as refused:
        check_message(message, CALLER)

    assert refused.value.reason == "organization_unverified"
    assert looks_at(message) <= MAX_LOOKS == 4096


def test_too_many_elements_are_not_looked_at_at_all():
    assert looks_at(Order(orgs=[OWN] * 5000)) == looks_at(Order())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Order(lines=[Line(org=OWN)] * 2000), id="messages"),
        pytest.param(lambda: Order(orgs=[OWN] * 4000), id="elements"),
        pytest.param(lambda: Order(org_by_region={str(number): OWN for number in range(4000)}), id="map"),
        pytest.param(lambda: Order(note="n" * (4 << 20), org=OWN), id="much that is not marked"),
        pytest.param(lambda: Plain(next=Plain(org=OTHER)), id="nothing that is marked"),
    ],
)
def test_large_message_is_looked_through(make):
    assert is_allowed(make())


def test_last_of_many_is_looked_at():
    assert not is_allowed(Order(lines=[*[Line(org=OWN)] * 1999, Line(org=OTHER)]))
    assert not is_allowed(Order(orgs=[*[OWN] * 3999, OTHER]))


@pytest.mark.parametrize("one", [Plain, bytes, str, type(None)])
def test_types_without_marked_fields_have_no_places(one):
    assert places_of(one) is None


@pytest.mark.parametrize("request_", [b"org_other", "org_other", None, object()])
def test_what_is_no_message_is_let_through(request_):
    assert is_allowed(request_)


def test_mark_on_a_number_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^tests\.Wrong\.org: \(authz\.v1\.organization\) is for strings only$"):
        check_message(Wrong(), CALLER)


MARKED = {"org", "orgs", "org_by_region", "owner_org", "maybe_org"}

_names = st.sampled_from(["", OWN, TENANT, OTHER, "org_third"])
_line = st.fixed_dictionaries({}, optional={"note": _names, "org": _names})
_leaf = {
    "org": _names,
    "orgs": st.lists(_names, max_size=3),
    "org_by_region": st.dictionaries(st.sampled_from("abc"), _names, max_size=2),
    "maybe_org": _names,
    "note": _names,
    "line": _line,
    "lines": st.lists(_line, max_size=2),
    "line_by_name": st.dictionaries(st.sampled_from("abc"), _line, max_size=2),
}
_owner = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"owner_org": _names}),
    st.fixed_dictionaries({"person": _names}),
    st.fixed_dictionaries({"owner_line": _line}),
)
_one = st.builds(lambda fields, owner: fields | owner, st.fixed_dictionaries({}, optional=_leaf), _owner)
_orders = st.recursive(_one, lambda inner: st.builds(lambda one, parent: one | {"parent": parent}, _one, inner))


def named(value: Any, *, is_marked: bool = False) -> set[str]:
    """Return every organization that a message in JSON names."""
    if isinstance(value, dict):
        return {name for key, inner in value.items() for name in named(inner, is_marked=is_marked or key in MARKED)}
    if isinstance(value, list):
        return {name for inner in value for name in named(inner, is_marked=is_marked)}
    return {value} if is_marked else set()


@given(_orders)
def test_request_is_refused_if_and_only_if_it_names_another(fields):
    assert is_allowed(order(**fields)) == (named(fields) <= {"", OWN, TENANT})
