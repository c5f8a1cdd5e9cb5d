import copy
import re

import pytest
import yaml

from authz.demo.issuer.directory import DEFAULT_FILE, load_directory
from authz.errors import ConfigError

GOOD = {
    "audience": "client_env",
    "organizations": [
        {
            "id": "org_1",
            "name": "Acme",
            "applications": [
                {
                    "client_id": "client_1",
                    "client_secret": "acme-development-secret",
                    "name": "Dispatch",
                    "scopes": ["ledger:read"],
                }
            ],
        }
    ],
}
ORGANIZATION = "organizations[0]"
APPLICATION = "organizations[0].applications[0]"


@pytest.fixture
def load(tmp_path):
    def load(content):
        path = tmp_path / "orgs.yaml"
        path.write_bytes(content if isinstance(content, bytes) else yaml.safe_dump(content).encode())
        return load_directory(path)

    return load


@pytest.fixture
def good():
    return copy.deepcopy(GOOD)


def test_built_in_ids_have_the_shape_of_workos_ids():
    directory = load_directory()
    ids = [directory.audience, *(organization.id for organization in directory.organizations)]
    ids += [application.client_id for application in directory.applications]

    assert all(re.fullmatch(r"(org|client)_01[0-9A-HJKMNP-TV-Z]{24}", value) for value in ids)


def test_built_in_organizations_are_two():
    assert [known.name for known in load_directory().organizations] == ["Acme Freight", "Globex Retail"]


def test_built_in_secrets_are_plainly_made_up():
    assert all(known.client_secret.endswith("-development-secret") for known in load_directory().applications)


def test_built_in_file_is_also_an_example_to_copy():
    assert load_directory() == load_directory(DEFAULT_FILE)


def test_application_belongs_to_its_organization(load, good):
    application = load(good).application("client_1")

    assert (application.org_id, application.scopes, application.type) == ("org_1", ("ledger:read",), "m2m")


@pytest.mark.parametrize("client_id", ["client_2", "", None, ["client_1"]])
def test_unknown_application_is_none(load, good, client_id):
    assert load(good).application(client_id) is None


def test_secret_is_not_in_the_repr(load, good):
    assert "acme-development-secret" not in repr(load(good))


def test_application_may_have_no_scopes(load, good):
    good["organizations"][0]["applications"][0]["scopes"] = []

    assert load(good).applications[0].scopes == ()


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("", {"audience": None}, "audience: must be text"),
        ("", {"audience": "env"}, "audience: must be client_"),
        ("", {"organizations": []}, "organizations: must be a list of at least one"),
        ("", {"organizations": {"id": "org_1"}}, "organizations: must be a list of at least one"),
        ("", {"organizations": ["org_1"]}, f"{ORGANIZATION}: must be a mapping"),
        ("", {"organisations": []}, "unknown key 'organisations'; known are audience, organizations"),
        (ORGANIZATION, {"id": "acme"}, f"{ORGANIZATION}.id: must be org_"),
        (ORGANIZATION, {"id": "org_1\r\nx: y"}, f"{ORGANIZATION}.id: must be org_"),
        (ORGANIZATION, {"name": ""}, f"{ORGANIZATION}.name: must be text on one line"),
        (ORGANIZATION, {"name": "two\nlines"}, f"{ORGANIZATION}.name: must be text on one line"),
        (ORGANIZATION, {"applications": None}, f"{ORGANIZATION}.applications: must be a list of at least one"),
        (ORGANIZATION, {7: "x"}, f"{ORGANIZATION}: unknown key 7"),
        (APPLICATION, {"client_id": "org_1"}, f"{APPLICATION}.client_id: must be client_"),
        (APPLICATION, {"client_id": "client_env"}, f"{APPLICATION}.client_id: client_env is already the audience"),
        (APPLICATION, {"client_secret": 12345}, f"{APPLICATION}.client_secret: must be text (printable ASCII)"),
        (APPLICATION, {"client_secret": ""}, f"{APPLICATION}.client_secret: must be printable ASCII"),
        (APPLICATION, {"scopes": "ledger:read"}, f"{APPLICATION}.scopes: must be a list"),
        (APPLICATION, {"scopes": ["a b"]}, f"{APPLICATION}.scopes[0]: must be a word"),
        (APPLICATION, {"scopes": ["a", "a"]}, f"{APPLICATION}.scopes: names a scope twice"),
        (APPLICATION, {"type": "spa"}, f"{APPLICATION}.type: must be m2m or oauth"),
        (APPLICATION, {"type": ["m2m"]}, f"{APPLICATION}.type: must be m2m or oauth"),
    ],
)
def test_wrong_value_names_file_and_key(load, good, place, change, message):
    organization = good["organizations"][0]
    {"": good, ORGANIZATION: organization, APPLICATION: organization["applications"][0]}[place].update(change)

    with pytest.raises(ConfigError, match=rf"^\S*/orgs\.yaml: {re.escape(message)}[^\n]*$"):
        load(good)


@pytest.mark.parametrize("key", ["client_id", "client_secret", "name", "scopes"])
def test_missing_key_is_named(load, good, key):
    del good["organizations"][0]["applications"][0][key]

    with pytest.raises(ConfigError, match=re.escape(f"{APPLICATION}: the key {key} is missing")):
        load(good)


def test_organization_id_twice_is_refused(load, good):
    good["organizations"].append({**good["organizations"][0]})

    with pytest.raises(ConfigError, match=re.escape("organizations[1].id: org_1 is already the organizations[0].id")):
        load(good)


def test_client_id_twice_is_refused(load, good):
    good["organizations"].append({**good["organizations"][0], "id": "org_2"})

    with pytest.raises(ConfigError, match=re.escape("organizations[1].applications[0].client_id: client_1 is already")):
        load(good)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "must be a mapping with the keys audience, organizations", id="empty"),
        pytest.param(b"- a", "must be a mapping", id="list"),
        pytest.param(b"audience: [", r"not YAML: .*\(line 1, column 12\)", id="syntax"),
        pytest.param(b"a: b: c", r"not YAML: .*\(line 1, column 5\)", id="nested-colon"),
        pytest.param(b"a: \xff", "not YAML", id="not-utf8"),
        pytest.param(b"a: \x00", "not YAML", id="nul"),
        pytest.param(b"a: 2024-99-99", "not YAML", id="impossible-date"),
        pytest.param(b"a: !!python/object:os.system x", "not YAML", id="python-tag"),
        pytest.param(b"[" * 3_000, "not YAML", id="nested"),
    ],
)
def test_what_is_not_the_file_we_want_is_one_clear_line(load, content, message):
    with pytest.raises(ConfigError, match=rf"^\S*/orgs\.yaml: {message}[^\n]*$"):
        load(content)


def test_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_directory(tmp_path / "nowhere.yaml")
