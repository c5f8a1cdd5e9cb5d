"""Settings of a file: what may stand there, what goes before it, and how a mistake in it is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from authz.errors import ConfigError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from authz.judge.configured import authorizer_of
from authz.settings.config_file import KEYS, MAX_BYTES, read_document
from authz.settings.settings import Settings, VerifierSettings
from authz.settings.types import type_of
from authz.settings.variables import SECRETS, SETTINGS
from tests.doubles import AUDIENCE, ISSUER
from tests.settings import schema

pytestmark = pytest.mark.usefixtures("no_settings")

# One of each type, as YAML and TOML write them.
YAML = f"""\
# yaml-language-server: $schema=https://grpc-org-authz.dev/latest/schemas/config.schema.json
issuer: {ISSUER}
audience:
  - {AUDIENCE}
  - other
algorithms: ES256
discover: false
leeway: 5
max_pending: 7
log_level: warning
"""
TOML = f"""\
issuer = "{ISSUER}"
audience = [
  "{AUDIENCE}",
  "other",
]
algorithms = "ES256"
discover = false
leeway = 5
max_pending = 7
log_level = "warning"
"""
JSON = json.dumps(
    {
        "issuer": ISSUER,
        "audience": [AUDIENCE, "other"],
        "algorithms": "ES256",
        "discover": False,
        "leeway": 5,
        "max_pending": 7,
        "log_level": "warning",
    }
)
ISSUERS = """\
shared_organizations: true
realm: ledger
issuers:
- issuer: https://a.example
  audience: a
- issuer: https://b.example
  audience: b
  leeway: 3
"""


ONE = f"issuer: {ISSUER}\naudience: a\n"
MISTAKES = [
    (f"{ONE}jwks-url: https://a\n", "authz.yaml:3: 'jwks-url': no such setting; the nearest is jwks_url"),
    (f"{ONE}AUTHZ_GRACE: 1\n", "authz.yaml:3: 'AUTHZ_GRACE': no such setting; the nearest is grace"),
    (f"{ONE}polici: p.yaml\n", "authz.yaml:3: 'polici': no such setting; the nearest is policy"),
    (f"{ONE}client_secret: s\n", "authz.yaml:3: 'client_secret': no such setting"),
    (f"{ONE}shared_organizations: true\n", "authz.yaml:3: 'shared_organizations': no such setting"),
    (f"{ONE}1: true\n", "authz.yaml:3: '1': no such setting"),
    (f"{ONE}policy:\n  path: p.yaml\n", "authz.yaml:3: policy: must be text"),
    (f"{ONE}policy:\n", "authz.yaml:3: policy: must not be empty"),
    (f"{ONE}policy: ''\n", "authz.yaml:3: policy: must not be empty"),
    (f"{ONE}policy: ' '\n", "authz.yaml:3: policy: must not be empty"),
    (f"{ONE}policy: \"'p.yaml'\"\n", "authz.yaml:3: policy: must not be in quotes"),
    (f"{ONE}realm: 1\n", "authz.yaml:3: realm: must be text"),
    (f"{ONE}leeway: '1'\n", "authz.yaml:3: leeway: must be a number"),
    (f"{ONE}leeway: true\n", "authz.yaml:3: leeway: must be a number"),
    (f"{ONE}workers: true\n", "authz.yaml:3: workers: must be a whole number"),
    (f"{ONE}workers: 1.5\n", "authz.yaml:3: workers: must be a whole number"),
    (f"{ONE}workers: 100\n", "authz.yaml:3: workers: Input should be less than or equal to 64"),
    (f"{ONE}discover: yes\n", "authz.yaml:3: discover: must be true or false"),
    (f"{ONE}discover: 1\n", "authz.yaml:3: discover: must be true or false"),
    (f"{ONE}engine: fast\n", "authz.yaml:3: engine: Input should be 'grpcio' or 'native'"),
    (f"{ONE}listen: []\n", "authz.yaml:3: listen: must not be empty"),
    (f"{ONE}listen: [1]\n", "authz.yaml:3: listen: must be a list of texts"),
    (f"{ONE}listen: ['']\n", "authz.yaml:3: listen: must not be empty"),
    (f"{ONE}public_methods: {{a: b}}\n", "authz.yaml:3: public_methods: must be a list of texts"),
    (f"{ONE}quota_store: redis://a:1\n", "authz.yaml:3: quota_store: set store as well"),
    (f"{ONE}leeway: 400\n", "authz.yaml:3: leeway: 400.0 is not a number of seconds from 0 up to 300"),
    (f"{ONE}config: other.yaml\n", "authz.yaml:3: config: a file of settings cannot name another"),
    (f"{ONE}env_file: .env\n", "authz.yaml:3: env_file: a file of settings cannot name another"),
    (f"{ONE}issuer: b\n", "authz.yaml:3: the key 'issuer' is given twice"),
    (f"{ONE}realm: &a b\n", "authz.yaml:3: anchors and aliases are not supported"),
    (f"{ONE}realm: !!python/name:os.system b\n", "authz.yaml:3: tags such as"),
    (f"{ONE}---\nrealm: a\n", "authz.yaml:3: a second document"),
    (f"{ONE}realm: {'[' * 40}\n", "authz.yaml:3: nested too deeply"),
    (f"{ONE}realm: [\n", "authz.yaml:4: not YAML: "),
    ("- a\n", "authz.yaml:1: must be a mapping of settings"),
    ("issuers: []\n", "authz.yaml:1: issuers: must be a list with one entry"),
    (ISSUERS.replace("leeway", "leewey"), "authz.yaml:8: 'leewey': no such key; the nearest is leeway"),
    (f"{ISSUERS}jwks_url: https://a\n", "authz.yaml:9: jwks_url: belongs into the list of issuers"),
]


def write(text: str, name: str = "authz.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def error_of(text: str, name: str = "authz.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        use(write(text, name))
    return str(caught.value)


def use(path: str) -> None:
    settings = Settings.load(config=path)
    with settings.naming_origins():
        authorizer_of(settings)


# ---- What is read ----


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML), ("a.json", JSON)])
def test_the_suffix_says_how_a_file_is_read(name: str, text: str) -> None:
    settings = Settings.load(config=write(text, name))

    assert settings.issuer == ISSUER
    assert (settings.audience, settings.algorithms) == ([AUDIENCE, "other"], ["ES256"])
    assert (settings.discover, settings.leeway, settings.max_pending) == (False, 5.0, 7)
    assert settings.log_level == "warning"


def test_every_setting_may_stand_in_the_file_but_secrets_and_names_of_such_files() -> None:
    values: dict[type, Any] = {bool: True, int: 3, float: 40.0, str: "x", list: ["x"]}
    choices = {
        "decision_log": "all",
        "engine": "native",
        "forward_auth_headers": "none",
        "introspect_if_unavailable": "local",
        "introspect_max_age": 5,
        "introspection_auth_method": "client_secret_basic",
        "isolation": "enforce",
        "log_format": "json",
        "log_level": "debug",
        "quota_if_unavailable": "deny",
        "store_stale": 50,
        "token_profile": "okta",
        "unknown_organizations": "deny",
    }
    given = {name: values[type_of(Settings.model_fields[name].annotation)] for name in KEYS} | choices
    settings = Settings.load(config=write(json.dumps(given), "a.json"))

    assert set(Settings.model_fields) == SETTINGS == KEYS | SECRETS | {"config", "env_file"}
    assert {name: getattr(settings, name) for name in KEYS} == given
    assert {name for name, field in Settings.model_fields.items() if field.annotation == SecretStr | None} == SECRETS


ORIGINS = ["file", "lines", "variable", "flag"]


@pytest.mark.parametrize("number", range(len(ORIGINS)), ids=ORIGINS)
def test_flag_goes_before_variable_before_its_file_before_the_file_of_settings(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("realm: file\ngrace: 9\n")
    write("AUTHZ_REALM=lines\n" if number > 0 else "", ".env")
    if number > 1:
        monkeypatch.setenv("AUTHZ_REALM", "variable")
    flags = {"realm": "flag"} if number > 2 else {}
    settings = Settings.load(config="authz.yaml", env_file=".env", **flags)

    assert (settings.realm, settings.grace) == (ORIGINS[number], 9.0)
    assert settings.origin("realm") == ["authz.yaml:1", "AUTHZ_REALM in .env", "AUTHZ_REALM", "--realm"][number]
    assert settings.origin("drain") == ""


def test_a_wrong_value_that_another_replaces_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may mend one machine by a variable."""
    write("leeway: many\nrealm: ledger\n")
    monkeypatch.setenv("AUTHZ_LEEWAY", "3")

    assert Settings.load(config="authz.yaml").leeway == 3.0


@pytest.mark.parametrize("where", ["variable", "lines"])
def test_a_variable_may_name_the_file(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(YAML)
    if where == "variable":
        monkeypatch.setenv("AUTHZ_CONFIG", " authz.yaml\n")
    else:
        monkeypatch.setenv("AUTHZ_ENV_FILE", write("AUTHZ_CONFIG=authz.yaml\n", ".env"))

    assert Settings.load().leeway == 5.0
    assert Verifier.from_env().issuer == ISSUER
    # The flag goes before it, and no file is read that is not named.
    assert Settings.load(config=write("realm: other", "other.yaml")).leeway == 10.0


@pytest.mark.parametrize("value", ["", "  ", "'authz.yaml'"])
def test_a_variable_that_names_no_file_is_a_mistake(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(YAML)
    monkeypatch.setenv("AUTHZ_CONFIG", value)
    with pytest.raises(ConfigError, match=r"^config: must not be (empty|in quotes).*; set AUTHZ_CONFIG$"):
        Settings.load()


def test_a_path_in_the_file_begins_where_that_of_a_flag_does(tmp_path: Path) -> None:
    """In the working folder, so that a setting means the same wherever it stands."""
    (tmp_path / "etc").mkdir()
    write('{"name": "p", "allow_rules": [{"name": "r"}]}', "policy.json")
    config = write(f"issuer: {ISSUER}\naudience: a\npolicy: policy.json\n", "etc/authz.yaml")

    authorizer_of(Settings.load(config=config)).close()


# ---- The schema, for editors ----

SCHEMA = Path(__file__).parents[2] / "authz/cli/schemas/config.schema.json"
EXAMPLE = Path(__file__).parents[2] / "examples/authz.yaml"


def test_the_schema_is_what_the_settings_say() -> None:
    """Run ``make settings`` if this fails."""
    assert SCHEMA.read_text(encoding="utf-8") == schema.text()
    Draft202012Validator.check_schema(schema.document())


@pytest.mark.parametrize("text", [YAML, ISSUERS], ids=["all", "issuers"])
def test_the_schema_accepts_what_is_read(text: str) -> None:
    Settings.load(config=write(text)).listed()

    assert list(Draft202012Validator(schema.document()).iter_errors(read_document("authz.yaml").data)) == []


def test_the_example_is_read_and_names_the_schema() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")

    assert text.startswith(f"# yaml-language-server: $schema={schema.ID}\n")
    assert Settings.load(config=str(EXAMPLE)).drain == 15.0
    assert Draft202012Validator(schema.document()).is_valid(read_document(str(EXAMPLE)).data)


# Of which the schema knows nothing: what no single value decides, and what is no data yet.
BEYOND = (
    "quota_store",
    "leeway: 400",
    "issuer' is given",
    "anchors",
    "tags",
    "a second",
    "nested",
    "not YAML",
    "belongs",
)


@pytest.mark.parametrize(
    ("text", "message"),
    [each for each in MISTAKES if not any(words in each[1] for words in BEYOND)],
    ids=lambda text: text if text.startswith("authz.yaml") else "",
)
def test_the_schema_refuses_what_is_refused(text: str, message: str) -> None:
    assert error_of(text).startswith(message)
    assert not Draft202012Validator(schema.document()).is_valid(read_document("authz.yaml").data)


# ---- Several issuers ----


def test_the_file_may_list_the_issuers_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_CONFIG", write(ISSUERS))
    settings = Settings.load(leeway=2.0)
    listed = settings.listed()

    assert listed is not None
    assert [(each.name, each.leeway) for each in listed.listed] == [
        ("https://a.example", 2.0),
        ("https://b.example", 3.0),
    ]
    assert (settings.issuers, settings.realm) == ("authz.yaml", "ledger")
    assert list(Verifiers.from_env().health()) == ["https://a.example", "https://b.example"]


def test_toml_may_list_them_as_tables() -> None:
    tables = "\n".join(f'[[issuers]]\nissuer = "https://{name}.example"\naudience = "{name}"' for name in "ab")
    settings = Settings.load(config=write(f"shared_organizations = true\n{tables}\nleeway = 3", "authz.toml"))
    listed = settings.listed()

    assert listed is not None
    assert [each.leeway for each in listed.listed] == [10.0, 3.0]


def test_the_file_may_name_that_of_the_issuers() -> None:
    write("issuers: [{issuer: 'https://c.example', audience: c}]", "issuers.yaml")
    listed = Settings.load(config=write("issuers: issuers.yaml\nrealm: x")).listed()

    assert listed is not None
    assert [each.name for each in listed.listed] == ["https://c.example"]


def test_a_flag_goes_before_the_list() -> None:
    write("issuers: [{issuer: 'https://c.example', audience: c}]", "issuers.yaml")
    listed = Settings.load(config=write(ISSUERS), issuers="issuers.yaml").listed()

    assert listed is not None
    assert [each.name for each in listed.listed] == ["https://c.example"]


# ---- Mistakes ----


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_named_with_its_line_and_key(text: str, message: str) -> None:
    error = error_of(text)

    assert error.startswith(message)
    assert "\n" not in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('realm = "a"\nworkers = "2"\n', "authz.toml:2: workers: must be a whole number"),
        ('realm = "a"\nrealm = "b"\n', "authz.toml:2: not TOML: Cannot overwrite a value"),
        ('realm = "a"\ngrace = 2027-01-31\n', "authz.toml:2: grace: must be a number"),
        ('realm = "a"\ngrace.x = 1\n', "authz.toml:2: grace: must be a number"),
        ('realm = "a"\n\n[policy]\nx = 1\n', "authz.toml:3: policy: must be text"),
        ('realm = "a"\n"issuer" = 1\n', "authz.toml:2: issuer: must be text"),
        ('realm = """\nissuer = 1\n"""\nissuer = 1\n', "authz.toml: issuer: must be text"),
        ('realm = "a"\nleewey = 1\n', "authz.toml:2: 'leewey': no such setting; the nearest is leeway"),
        (
            '[[issuers]]\nissuer = "a"\naudience = "a"\norganizations = "a"\n[[issuers]]\nissuer = "b"\nleewey = 1',
            "authz.toml:7: 'leewey': no such key; the nearest is leeway",
        ),
        ('[[issuers]]\nissuer = "a"\n[[issuers]]\nissuer = "b"', "authz.toml:1: audience: missing"),
        ('issuers = [\n  {issuer = "a"},\n]', "authz.toml:1: audience: missing"),
        ("realm = [" + "[" * 10_000, "authz.toml: nested too deeply"),
        ("realm =", "authz.toml:1: not TOML"),
    ],
)
def test_a_mistake_in_toml_is_named_with_its_line_where_one_line_looks_like_it(text: str, message: str) -> None:
    assert error_of(text, "authz.toml").startswith(message)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_has_no_place_in_the_file_and_is_not_repeated(name: str) -> None:
    error = error_of(f"{ONE}{name}: hunter2-hunter2\n")

    assert error == f"authz.yaml:3: {name}: no secret stands here; name a file: {name}_file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"realm: caf\xe9", "is not UTF-8 text"),
        (b"# " + b"x" * MAX_BYTES, "longer than 1 MiB"),
        (b"realm: \x00", "not YAML"),
    ],
    ids=["missing", "bytes", "large", "zero"],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, message: str) -> None:
    for name in ("authz.yaml", "authz.toml", "authz.json"):
        if content is not None:
            Path(name).write_bytes(content)
        with pytest.raises(ConfigError, match=rf"^{name}:(1:)? ({re.escape(message)}|not )"):
            Settings.load(config=name)


def test_an_endless_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: longer than 1 MiB$"):
        Settings.load(config="/dev/zero")


def test_what_a_command_does_not_use_is_not_looked_at() -> None:
    """As with variables: `authz verify` says nothing of a server's settings, but a misspelt one may be its own."""
    write(f"{ONE}workers: many\n")

    assert VerifierSettings.load(config="authz.yaml").issuer == ISSUER
    with pytest.raises(ConfigError, match=r"^authz\.yaml:3: 'worker': no such setting"):
        VerifierSettings.load(config=write(f"{ONE}worker: 1\n"))
