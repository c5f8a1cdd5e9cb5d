"""Several issuers of a file: what is read, what is refused and where, and who is admitted. Rows S8 to S10."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from authz import cli
from authz.call.call import Call
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ConfigError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers, verifier_of
from authz.judge.authorizer import Authorizer
from authz.judge.configured import authorizer_of
from authz.organizations.workos import WorkOSDirectory
from authz.runtime.flow import run
from authz.server.serving.health import Health
from authz.server.serving.pulse import Pulse
from authz.settings import settings
from authz.settings.issuers import KEYS, PROPER, ListedIssuer
from authz.settings.settings import Settings, VerifierSettings
from tests.doubles import AUDIENCE, CLIENT, ISSUER, ORG, jwks, m2m_claims

GLOBEX, GLOBEX_ORG = "https://login.globex.example", "globex-eu"

pytestmark = pytest.mark.usefixtures("no_settings", "restored_logging")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Return a function that writes a file of issuers and returns its path."""

    def write(text: str, name: str = "issuers.yaml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def two(**changes: Any) -> dict[str, Any]:
    return {
        "issuers": [
            {"issuer": ISSUER, "audience": AUDIENCE, "organizations": "org_[0-9A-Z]{26}"},
            {"issuer": GLOBEX, "audience": ["ledger", "other"], "organizations": [GLOBEX_ORG]},
        ],
        **changes,
    }


# ---- S8: what is read ----


def test_each_issuer_has_keys_audience_and_organizations_of_its_own(
    write: Any, ec_key: SigningKey, rsa_key: SigningKey
) -> None:
    document = two()
    document["issuers"][0] |= {"jwks": json.dumps(jwks(ec_key)), "algorithms": "ES256"}
    document["issuers"][1] |= {"jwks": json.dumps(jwks(rsa_key)), "org_id_pattern": "[a-z-]+", "org_id_claim": "org"}
    verifiers = verifier_of(VerifierSettings.load(issuers=write(json.dumps(document), "issuers.json")))

    def verdict(key: SigningKey, **claims: Any) -> str:
        try:
            return verifiers.verify(key.sign(m2m_claims(time.time(), **claims))).org_id
        except AuthzError as error:
            return error.reason

    globex = {"iss": GLOBEX, "aud": "ledger", "org": GLOBEX_ORG}
    assert verdict(ec_key) == ORG
    assert verdict(rsa_key, **globex) == GLOBEX_ORG
    assert verdict(rsa_key) == "algorithm_not_allowed"
    assert verdict(ec_key, **globex) == "algorithm_not_allowed"
    assert verdict(ec_key, aud="ledger") == "claim_invalid"
    assert verdict(rsa_key, **globex | {"org": "acme-eu"}) == "claim_invalid"
    assert verdict(rsa_key, **globex | {"iss": "https://evil.example"}) == "claim_invalid"


def test_settings_outside_are_for_issuers_that_do_not_say_otherwise(write: Any) -> None:
    document = two()
    document["issuers"][1] |= {"leeway": 3, "allow_user_tokens": False}
    settings = VerifierSettings.load(issuers=write(json.dumps(document)), leeway=20, allow_user_tokens=True)
    listed = settings.listed()

    assert listed is not None
    assert [(each.leeway, each.allow_user_tokens) for each in listed.listed] == [(20.0, True), (3.0, False)]


def test_variables_do_not_reach_into_the_file(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in the list is not completed from a variable of another issuer's."""
    monkeypatch.setenv("AUTHZ_ISSUERS", write(json.dumps(two())))
    monkeypatch.setenv("AUTHZ_LISTEN", "127.0.0.1:1")
    settings = Settings.load()
    monkeypatch.setenv("AUTHZ_JWKS_URL", "https://evil.example/")
    listed = settings.listed()

    assert listed is not None
    assert [each.jwks_url for each in listed.listed] == [None, None]
    with pytest.raises(ConfigError, match=r"^jwks_url: belongs into the list of issuers.* remove AUTHZ_JWKS_URL"):
        authorizer_of(Settings.load())


OF_ONE = [
    *("issuer", "audience", "discover_hosts", "jwks", "jwks_seed", "jwks_url", "introspection_url"),
    *("introspection_client_id", "introspection_client_secret", "introspection_client_secret_file"),
]


@pytest.mark.parametrize("name", OF_ONE)
def test_what_is_of_one_issuer_stands_in_the_file(write: Any, name: str) -> None:
    settings = Settings.load(issuers=write(json.dumps(two())), **{name: "https://a.example"})

    with pytest.raises(ConfigError, match=rf"^{name}: belongs into the list of issuers, for one of them"):
        authorizer_of(settings)


def test_every_setting_of_an_issuer_may_stand_in_the_file() -> None:
    assert set(ListedIssuer.model_fields) - KEYS == {
        "ca_file",
        "config",
        "env_file",
        "introspection_client_secret",
        "proxy_from_env",
    }
    assert set(OF_ONE) == PROPER < set(ListedIssuer.model_fields)


def test_a_file_may_list_one_issuer(write: Any) -> None:
    verifier = verifier_of(
        VerifierSettings.load(issuers=write(f"issuers: [{{issuer: '{ISSUER}', audience: {AUDIENCE}}}]"))
    )

    assert isinstance(verifier, Verifiers)
    assert (list(verifier.health()), verifier.ownership) == ([ISSUER], None)


def test_from_env_builds_what_it_is_called_on(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHZ_ISSUER", ISSUER)
    monkeypatch.setenv("AUTHZ_AUDIENCE", AUDIENCE)
    alone = Verifiers.from_env()
    monkeypatch.delenv("AUTHZ_ISSUER")
    monkeypatch.delenv("AUTHZ_AUDIENCE")
    monkeypatch.setenv("AUTHZ_ISSUERS", write(json.dumps(two())))

    assert list(alone.health()) == [ISSUER]
    assert list(Verifiers.from_env().health()) == [ISSUER, GLOBEX]
    with pytest.raises(ConfigError, match=r"^issuers: a Verifier is of one issuer; use Verifiers\.from_env"):
        Verifier.from_env()


def test_the_files_of_the_document_are_good(write: Any) -> None:
    document = (Path(__file__).parents[2] / "docs/interceptors.md").read_text(encoding="utf-8")
    _, _, chapter = document.partition("### In settings")
    examples = re.findall(r"```yaml\n(.*?)```", chapter, re.DOTALL)
    built = [verifier_of(VerifierSettings.load(issuers=write(text))) for text in examples]

    assert [list(each.health()) for each in built] == [[ISSUER, GLOBEX], [ISSUER, "https://auth.acme.example"]]
    named = set(
        re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", chapter.partition("###")[0], re.MULTILINE)))
    )
    assert named == KEYS


def test_the_check_of_a_configuration_says_whom_each_issuer_may_name(write: Any, capsys: Any) -> None:
    assert cli.run(["serve", "--check-config", "--issuers", write(json.dumps(two()))]) == 0

    out = capsys.readouterr().out
    assert f"issuer: {ISSUER} (audience {AUDIENCE}; organizations org_[0-9A-Z]{{26}})" in out
    assert f"issuer: {GLOBEX} (audience ledger, other; organizations {GLOBEX_ORG})" in out


# ---- S9: what is refused, and where it stands ----

HEAD = f"issuers:\n- issuer: {ISSUER}\n  audience: a\n  organizations: org_1\n"
REST = f"- issuer: {GLOBEX}\n  audience: b\n  organizations: [org_2]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r": must be a mapping with the key issuers"),
        ("[]", r":1: must be a mapping with the key issuers"),
        ("shared_organizations: true", r":1: issuers: must be a list"),
        ("issuers: []", r":1: issuers: must be a list with one entry for each issuer"),
        ("issuers: {}", r":1: issuers: must be a list"),
        ("issuers: [a]", r":1: an issuer must be a mapping of settings"),
        (f"{HEAD}issuer: x", r":5: 'issuer': no such key; the nearest is issuers"),
        (f"{HEAD}shared_organizations: 'false'", r":5: shared_organizations: must be true or false"),
        (f"{HEAD}  algorithm: ES256", r":5: 'algorithm': no such key; the nearest is algorithms"),
        (f"{HEAD}  policy: p.yaml", r":5: 'policy': no such key; the nearest is "),
        (f"{HEAD}  ca_file: a.pem", r":5: 'ca_file': no such key"),
        (f"{HEAD}  introspection_client_secret: s3cret", r":5: introspection_client_secret: no secret stands here"),
        (f"{HEAD}  audience: b", r":5: the key 'audience' is given twice"),
        (f"{HEAD}  leeway: many", r":5: leeway: Input should be a valid number"),
        (f"{HEAD}  leeway: 301", r":5: leeway: 301\.0 is not a number of seconds"),
        (f"{HEAD}  org_id_pattern: '['", r":5: org_id_pattern: '\[' is not a regular expression"),
        (f"{HEAD}  jwks: {{}}", r":5: jwks: Input should be a valid string"),
        (f"{HEAD}  jwks_url: http://a.example", r":5: jwks_url: .* must use https"),
        (f"{HEAD}  jwks_url: ''", r":5: jwks_url: must not be empty"),
        (f"{HEAD}  token_profile: keykloak", r":5: token_profile: Input should be 'workos'"),
        (f"{HEAD}- audience: b", r":5: issuer: missing"),
        (f"{HEAD}- issuer: {GLOBEX}\n  audience: null", r":5: audience: missing"),
        (f"{HEAD}- issuer: {GLOBEX}\n  audience: b", r":5: organizations: missing; .* shared_organizations: true"),
        (f"{HEAD}- issuer: https://a,https://b\n  audience: b\n  organizations: o", r":5: issuer: .* names no host"),
        (f"{HEAD}- issuer: {ISSUER}\n  audience: b\n  organizations: o", r":5: issuer: '.*' is listed twice"),
        (f"{HEAD}{REST}shared_organizations: true", r":4: organizations: shared_organizations lets each issuer"),
        (f"{HEAD}{REST.replace('org_2', 'o 2')}", r": organizations: 'o 2', listed for .*, is not the id"),
        (f"{HEAD.replace('org_1', '[org_2]')}{REST}", r": organizations: 'org_2' is listed for both"),
        (f"{HEAD}---\n{REST}", r":5: a second document; a file holds one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(write: Any, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConfigError, match=rf"issuers\.yaml{message}") as caught:
        verifier_of(VerifierSettings.load(issuers=path))

    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"issuers\.yaml: cannot be read"):
        verifier_of(VerifierSettings.load(issuers=str(tmp_path / "issuers.yaml")))


def test_all_that_decides_is_built_of_one_reading_of_the_file(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second reading could find another file."""
    read, reads = settings.read_document, []

    def counted(path: str) -> Any:
        reads.append(path)
        return read(path)

    monkeypatch.setattr(settings, "read_document", counted)
    path = write(json.dumps(two()))
    authorizer_of(Settings.load(issuers=path)).close()

    assert reads == [path]


def test_each_issuer_that_is_asked_needs_credentials_of_its_own(write: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    document = two()
    document["issuers"][0] |= {
        "introspection_client_id": "api",
        "introspection_client_secret_file": str(tmp_path / "secret"),
    }
    settings = Settings.load(issuers=write(json.dumps(document)), introspect_max_age=0)

    with pytest.raises(ConfigError, match=r"issuers\.yaml:1: introspection_client_id: missing; each issuer"):
        authorizer_of(settings)
    document["issuers"][1] |= document["issuers"][0] | document["issuers"][1]
    authorizer = authorizer_of(Settings.load(issuers=write(json.dumps(document)), introspect_max_age=0))
    assert list(authorizer.introspectors) == [ISSUER, GLOBEX]


# ---- Directories ----


@pytest.mark.parametrize(
    ("document", "asked"),
    [
        (two(), None),
        (two(issuers=[two()["issuers"][0], {**two()["issuers"][1], "token_profile": "okta"}]), [True, False]),
        (
            {
                "issuers": [{"issuer": name, "audience": AUDIENCE} for name in (ISSUER, GLOBEX)],
                "shared_organizations": True,
            },
            [True, True],
        ),
    ],
    ids=["two-of-workos", "one-of-workos", "shared"],
)
def test_workos_is_asked_about_the_organizations_of_its_own_issuer(
    write: Any, tmp_path: Path, document: dict[str, Any], asked: list[bool] | None
) -> None:
    (tmp_path / "key").write_text("sk_test")
    settings = Settings.load(issuers=write(json.dumps(document)), workos_api_key_file=str(tmp_path / "key"))
    if asked is None:
        with pytest.raises(ConfigError, match=r"^workos_api_key: .* the file of issuers has 2 of them"):
            authorizer_of(settings)
        return
    organizations = authorizer_of(settings).organizations

    found = [organizations.directory_of(org_id) for org_id in (ORG, GLOBEX_ORG)]
    assert [isinstance(each, WorkOSDirectory) for each in found] == asked


# ---- S10: a change of domain, served by real issuers ----


def test_tokens_of_the_old_and_the_new_domain_are_the_same_organizations(
    write: Any, rsa_key: SigningKey, tmp_path: Path
) -> None:
    with IssuerServer(Issuer(keys=[rsa_key])) as old, IssuerServer(Issuer(keys=[SigningKey.generate("new")])) as new:
        application = old.issuer.directory.organizations[0].applications[0]
        (tmp_path / "secret").write_text(application.client_secret)
        entry = {
            "audience": old.issuer.directory.audience,
            "introspection_client_id": application.client_id,
            "introspection_client_secret_file": str(tmp_path / "secret"),
        }
        document = {
            "shared_organizations": True,
            "issuers": [{"issuer": old.url, **entry}, {"issuer": new.url, "discover": True, **entry}],
        }
        authorizer = authorizer_of(Settings.load(issuers=write(json.dumps(document)), introspect_max_age=0))
        try:
            callers = [_caller(authorizer, each.issuer.mint(application.client_id)) for each in (old, new)]
            forged = SigningKey.generate("new")
            with pytest.raises(AuthzError):
                _caller(authorizer, forged.sign(m2m_claims(time.time(), iss=new.url)))
            revoked = new.issuer.mint(application.client_id)
            new.issuer.revoke(token=revoked)
            with pytest.raises(AuthzError, match="token_inactive"):
                _caller(authorizer, revoked)
        finally:
            authorizer.close()

    assert [(caller.issuer, caller.org_id) for caller in callers] == [
        (old.url, application.org_id),
        (new.url, application.org_id),
    ]


def _caller(authorizer: Authorizer, token: str) -> Any:
    return run(authorizer.authorize(Call(method="/a.B/C", metadata=(("authorization", f"Bearer {token}"),))))


def test_one_issuer_that_is_down_keeps_nobody_of_the_other_out(write: Any, ec_key: SigningKey) -> None:
    document = {
        "issuers": [
            {"issuer": "http://127.0.0.1:9", "audience": AUDIENCE, "organizations": "other_.*"},
            {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "organizations": "org_.*",
                "jwks": json.dumps(jwks(ec_key)),
                "algorithms": ["ES256"],
            },
        ]
    }
    verifiers = verifier_of(VerifierSettings.load(issuers=write(json.dumps(document))))
    try:
        assert verifiers.verify(ec_key.sign(m2m_claims(time.time()))).client_id == CLIENT
        assert [health.is_ready for health in verifiers.health().values()] == [False, True]
    finally:
        verifiers.close()


@pytest.mark.parametrize(
    ("is_other_known", "reason"),
    [(True, ""), (False, "key_set_unavailable: refused")],
    ids=["one-is-known", "none-is-known"],
)
def test_a_server_is_ready_while_it_has_the_keys_of_one_issuer(
    write: Any, ec_key: SigningKey, *, is_other_known: bool, reason: str
) -> None:
    """Else an issuer that stays down would have every caller of the others turned away."""
    document = two()
    document["issuers"][0]["issuer"] = "http://127.0.0.1:9"
    document["issuers"][1] |= (
        {"jwks": json.dumps(jwks(ec_key)), "algorithms": ["ES256"]}
        if is_other_known
        else {"jwks_url": "http://127.0.0.1:9/"}
    )
    authorizer = authorizer_of(Settings.load(issuers=write(json.dumps(document))))

    async def first_word() -> str:
        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        health = Health(authorizer, Pulse(list))

        async def tell(reason: str) -> None:
            said.set_result(reason)

        health.watch(tell)
        keeping = asyncio.create_task(health.keep())
        try:
            return await asyncio.wait_for(said, 120)
        finally:
            keeping.cancel()

    try:
        assert asyncio.run(first_word()) == reason
    finally:
        authorizer.close()
