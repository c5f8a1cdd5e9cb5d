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
ORGANIZATION, APPLICATION = "organization", "application"


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
    ("place", "change", "message", "line"),
    [
        ("", {"audience": None}, "must be text, not nothing", "audience:"),
        ("", {"audience": "env"}, "'env' is not client_ and letters or digits", "audience:"),
        ("", {"organizations": []}, "must not be empty", "organizations:"),
        ("", {"organizations": {"id": "org_1"}}, "must be a list, not a mapping", "organizations:"),
        ("", {"organizations": ["org_1"]}, "must be a mapping, not text", "- org_1"),
        ("", {"organisations": []}, "unknown key 'organisations'; did you mean 'organizations'?", "organisations:"),
        (ORGANIZATION, {"id": "acme"}, "'acme' is not org_ and letters or digits", "id:"),
        (ORGANIZATION, {"id": "org_1\r\nx: y"}, r"'org_1\r\nx: y' is not org_", "id:"),
        (ORGANIZATION, {"name": ""}, "'' is not text on one line", "name:"),
        (ORGANIZATION, {"name": "two\nlines"}, r"'two\nlines' is not text on one line", "name:"),
        (ORGANIZATION, {"applications": None}, "must be a list, not nothing", "applications:"),
        (ORGANIZATION, {"metadata": {"plan": 1}}, "must be text, not a number; put it in quotes", "plan:"),
        (ORGANIZATION, {"7": "x"}, "unknown key '7'", "'7':"),
        (APPLICATION, {"client_id": "org_1"}, "'org_1' is not client_", "client_id:"),
        (APPLICATION, {"client_id": "client_env"}, "client_env is already the audience", "client_id:"),
        (APPLICATION, {"client_secret": 12345}, "must be text, not a number; put it in quotes", "client_secret:"),
        (APPLICATION, {"client_secret": ""}, "the secret is not printable ASCII", "client_secret:"),
        (APPLICATION, {"scopes": "ledger:read"}, "must be a list, not text", "scopes:"),
        (APPLICATION, {"scopes": ["a b"]}, "'a b' is not a word without blanks, quotes or backslashes", "- a b"),
        (APPLICATION, {"scopes": ["a", "a"]}, "'a' is given twice", "- a"),
        (APPLICATION, {"type": "spa"}, "'spa' must be m2m or oauth", "type:"),
        (APPLICATION, {"type": ["m2m"]}, "must be text, not a list", "type:"),
    ],
)
def test_wrong_value_names_file_and_line(load, good, tmp_path, *, place, change, message, line):
    organization = good["organizations"][0]
    {"": good, ORGANIZATION: organization, APPLICATION: organization["applications"][0]}[place].update(change)

    with pytest.raises(ConfigError, match=rf"^\S*/orgs\.yaml:\d+: {re.escape(message)}[^\n]*$") as error:
        load(good)

    number = int(str(error.value).removeprefix(f"{tmp_path}/orgs.yaml:").partition(":")[0])
    assert line in (tmp_path / "orgs.yaml").read_text().splitlines()[number - 1]


def test_secret_is_not_in_the_error(load, good):
    good["organizations"][0]["applications"][0]["client_secret"] = "s3cret\u00e9"

    with pytest.raises(ConfigError) as error:
        load(good)

    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("key", ["client_id", "client_secret", "name", "scopes"])
def test_missing_key_is_named(load, good, key):
    del good["organizations"][0]["applications"][0][key]

    with pytest.raises(ConfigError, match=rf"orgs\.yaml:\d+: '{key}' is missing"):
        load(good)


def test_organization_id_twice_is_refused(load, good):
    good["organizations"].append(copy.deepcopy(good["organizations"][0]))

    with pytest.raises(ConfigError, match=re.escape("org_1 is already the id of organizations.0")):
        load(good)


def test_client_id_twice_is_refused(load, good):
    good["organizations"].append({**copy.deepcopy(good["organizations"][0]), "id": "org_2"})

    with pytest.raises(
        ConfigError, match=re.escape("client_1 is already the client_id of organizations.0.applications.0")
    ):
        load(good)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", " must be a mapping, not nothing", id="empty"),
        pytest.param(b"- a", "1: must be a mapping", id="list"),
        pytest.param(b"audience: [", "2: not YAML: ", id="syntax"),
        pytest.param(b"a: b: c", "1: not YAML: ", id="nested-colon"),
        pytest.param(b"a: \xff", " is not UTF-8 text", id="not-utf8"),
        pytest.param(b"a: \x00", " not YAML", id="nul"),
        pytest.param(b"a: 2024-99-99", "1: unknown key 'a'", id="impossible-date"),
        pytest.param(b"a: !!python/object:os.system x", "1: tags such as ", id="python-tag"),
        pytest.param(b"[" * 3_000, "1: nested too deeply", id="nested"),
    ],
)
def test_what_is_not_the_file_we_want_is_one_clear_line(load, content, message):
    with pytest.raises(ConfigError, match=rf"^\S*/orgs\.yaml:{message}[^\n]*$"):
        load(content)


def test_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load_directory(tmp_path / "nowhere.yaml")
