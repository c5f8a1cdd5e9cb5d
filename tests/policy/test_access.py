"""Who may call what, as .proto files of this process or of a descriptor set declare it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.duration_pb2 import Duration

from authz.demo.v1 import ledger_pb2
from authz.errors import ConfigError
from authz.policy.protos.access import Access, access_of_file, access_of_services
from authz.v1 import policy_pb2
from tests.marked import descriptor_set, service_file, with_imports

SERVICE = "/authz.demo.v1.LedgerService"

WRITE = frozenset({"ledger:write"})
LEDGER = {
    f"{SERVICE}/PostEntry": Access(scopes=(WRITE,)),
    f"{SERVICE}/ListEntries": Access(scopes=(frozenset({"ledger:read"}), WRITE)),
    f"{SERVICE}/ImportEntries": Access(scopes=(WRITE,), max_age=5.0),
    f"{SERVICE}/ReconcileEntries": Access(scopes=(WRITE,)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api.binpb"


def introspect(seconds: float = 0, **more: Any) -> policy_pb2.Introspect:
    return policy_pb2.Introspect(max_age=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)), **more)


def test_registered_services_say_who_may_call():
    assert access_of_services(["authz.demo.v1.LedgerService"]) == LEDGER


def test_descriptor_set_says_the_same(path):
    path.write_bytes(descriptor_set(ledger_pb2.DESCRIPTOR))

    assert access_of_file(path) == LEDGER
    assert access_of_file(str(path)) == LEDGER


def test_what_is_read_stays_as_it_is():
    with pytest.raises(TypeError):
        access_of_services(["authz.demo.v1.LedgerService"])["/a/b"] = Access()  # type: ignore[index]


def access(path: Path, own: Mapping[str, Any] | None, default: Mapping[str, Any] | None = None) -> Access | None:
    """Return what a method asks for that declares ``own``, of a service that declares ``default``."""
    path.write_bytes(with_imports(service_file({"Call": own}, default)))
    return access_of_file(path)["/tests.Api/Call"]


ALL = {
    "scopes": ["a b", "c"],
    "groups": ["g"],
    "organizations": ["org_1"],
    "clients": ["client_1"],
    "introspect": introspect(2.5, if_unavailable=policy_pb2.Introspect.IF_UNAVAILABLE_LOCAL),
}
ALL_READ = Access(
    scopes=(frozenset({"a", "b"}), frozenset({"c"})),
    groups=frozenset({"g"}),
    organizations=frozenset({"org_1"}),
    clients=frozenset({"client_1"}),
    max_age=2.5,
    if_unavailable="local",
)


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [
        pytest.param(None, None, None, id="nothing"),
        pytest.param({}, None, Access(), id="nothing but a good token"),
        pytest.param(None, {}, Access(), id="service that wants nothing but a good token"),
        pytest.param(ALL, None, ALL_READ, id="own"),
        pytest.param(None, ALL, ALL_READ, id="default"),
        pytest.param({}, ALL, ALL_READ, id="default of an empty option"),
        pytest.param(
            {"scopes": ["x"]},
            {"scopes": ["a"], "groups": ["g"]},
            Access(scopes=(frozenset({"x"}),), groups=frozenset({"g"})),
            id="field by field",
        ),
        pytest.param(
            {"introspect": introspect(0)},
            {"introspect": introspect(9, if_unavailable=policy_pb2.Introspect.IF_UNAVAILABLE_LOCAL)},
            Access(max_age=0.0),
            id="introspect is one field",
        ),
        pytest.param({"introspect": policy_pb2.Introspect()}, None, Access(max_age=0.0), id="every call asks"),
        pytest.param({"public": True}, ALL, Access(public=True), id="public method asks for nothing"),
        pytest.param({}, {"public": True}, Access(public=True), id="public service"),
        pytest.param({"public": False}, {"public": True}, Access(), id="method that is not public"),
        pytest.param(
            {"clients": ["c"]},
            {"public": True},
            Access(clients=frozenset({"c"})),
            id="method that asks for something is not public",
        ),
    ],
)
def test_method_goes_before_its_service(path, own, default, expected):
    assert access(path, own, default) == expected


@pytest.mark.parametrize(
    ("own", "message"),
    [
        pytest.param({"scopes": ["a  b"]}, "scopes: 'a  b' is not a scope, or several with one space", id="two spaces"),
        pytest.param({"scopes": [""]}, "scopes: '' is not a scope", id="no scope"),
        pytest.param({"scopes": ['a"b']}, "scopes: 'a\"b' is not a scope", id="quote"),
        pytest.param({"groups": ["g h"]}, "groups: 'g h' is not a name", id="space in a name"),
        pytest.param({"organizations": [""]}, "organizations: '' is not a name", id="no organization"),
        pytest.param({"clients": ["caf\u00e9"]}, r"clients: 'caf\xe9' is not a name", id="not ASCII"),
        pytest.param({"public": True, "scopes": ["a"]}, "public: true and scopes exclude one another", id="public"),
        pytest.param({"introspect": introspect(31)}, "max_age of 31 seconds is not from 0 to 30", id="too old"),
        pytest.param({"introspect": introspect(-1)}, "max_age of -1 seconds is not from 0 to 30", id="negative"),
        pytest.param(
            {"introspect": policy_pb2.Introspect(if_unavailable=9)}, "if_unavailable 9 is not known", id="newer enum"
        ),
    ],
)
def test_what_cannot_be_is_named_with_file_and_method(path, own, message):
    with pytest.raises(ConfigError) as raised:
        access(path, own)

    said = str(raised.value)
    assert said.startswith(f"descriptors: {str(path)!a}: /tests.Api/Call: ")
    assert message in said
    assert "\n" not in said


def test_service_that_contradicts_itself_is_a_mistake(path):
    with pytest.raises(ConfigError, match="public: true and groups exclude one another"):
        access(path, {}, {"public": True, "groups": ["g"]})


def test_service_that_is_not_registered_is_named():
    with pytest.raises(ConfigError, match=r"'no\.such\.Service' is not registered; import"):
        access_of_services(["no.such.Service"])


def test_file_that_cannot_be_read_is_named(path):
    with pytest.raises(ConfigError, match=r"^api: '.*' cannot be read \(No such file or directory\)$"):
        access_of_file(path, "api")


def _without_imports(data: bytes) -> bytes:
    files = FileDescriptorSet.FromString(data).file
    kept = [file for file in files if file.name != policy_pb2.DESCRIPTOR.name]
    return FileDescriptorSet(file=kept).SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\xff\xff", "is not a descriptor set; make one with: buf build", id="garbage"),
        pytest.param(b"", "declares no service", id="empty"),
        pytest.param(descriptor_set(policy_pb2.DESCRIPTOR), "declares no service", id="no service"),
        pytest.param(
            _without_imports(descriptor_set(ledger_pb2.DESCRIPTOR)),
            "lacks authz/v1/policy.proto; make it with: buf build",
            id="without imports",
        ),
        pytest.param(
            with_imports(service_file({"Call": {}}, request=".tests.Nothing")),
            "has files that do not fit together",
            id="unknown type",
        ),
        pytest.param(bytes(33 << 20), "is larger than 32 MiB", id="too large"),
    ],
)
def test_file_that_is_no_whole_descriptor_set_is_refused(path, data, message):
    path.write_bytes(data)

    with pytest.raises(ConfigError) as raised:
        access_of_file(path)

    assert str(raised.value).startswith(f"descriptors: {str(path)!a} ")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
