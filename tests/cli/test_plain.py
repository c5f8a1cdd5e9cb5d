"""Commands that need no extra of the package, and what the others say without theirs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from authz.cli.plain.healthcheck import parser as of_healthcheck
from authz.cli.plain.token import parser as of_token
from authz.cli.program.table import COMMANDS, PLAIN, names
from authz.settings.environment import flag
from authz.settings.groups import GROUPS
from authz.settings.variables import SECRETS
from tests import programs

# What is of an extra, by the names of its modules.
EXTRAS = (
    *("cyclopts", "dotenv", "grpc_health", "grpc_reflection", "h11", "prometheus_client", "pydantic", "pydantic_core"),
    *("pyrate_limiter", "redis", "rich", "starlette", "structlog", "uvicorn", "uvloop", "watchfiles", "workos", "yaml"),
)
BARE = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS!r})); from authz.__main__ import main; main()"


def bare(folder: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return programs.run(*arguments, folder=folder, command=(sys.executable, "-c", BARE), **variables)


@pytest.mark.parametrize("name", sorted(set(names()) - set(PLAIN)))
def test_a_command_without_its_extra_says_in_one_line_what_to_install(tmp_path: Path, name: str) -> None:
    done = bare(tmp_path, name, "--help")
    extras = {"issuer": "demo", "demo": "demo"} | dict.fromkeys(
        ("suspend", "resume", "revoke", "reinstate", "orders", "replicas", "usage"), "server,store"
    )
    needed = extras.get(name, "server")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"authz: {name} needs the extra{'s' if ',' in needed else ''} {needed!r} (cyclopts is missing): "
        f"pip install 'grpc-org-authz[{needed}]'\n"
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("a-token",)], ids=["none", "help", "unknown"])
def test_the_list_of_commands_needs_an_extra_and_names_what_does_not(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = bare(tmp_path, *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "authz: all commands but healthcheck, protos, token need the extra 'server' (cyclopts is missing): "
        "pip install 'grpc-org-authz[server]'\n"
    )


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_command_shows_its_help_without_an_extra(tmp_path: Path, name: str) -> None:
    done = bare(tmp_path, name, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: authz {name} ")


def test_version_and_protos_need_no_extra(tmp_path: Path) -> None:
    version, protos = bare(tmp_path, "--version"), bare(tmp_path, "protos")

    assert (version.returncode, protos.returncode) == (0, 0)
    assert version.stdout.count(".") == 2
    assert (Path(protos.stdout.strip()) / "authz/v1/policy.proto").exists()


def test_a_token_is_asked_for_without_an_extra(tmp_path: Path) -> None:
    # Port 9 (discard) has no server.
    url = "http://127.0.0.1:9/token"
    done = bare(tmp_path, "token", "--client-id", "a", "--token-url", url, AUTHZ_CLIENT_SECRET="s")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"authz: no token from {url}: ")


def test_credentials_of_variables_need_no_extra(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
from authz import ClientCredentials
print(ClientCredentials.from_env().client_id)
"""
    variables = {"AUTHZ_CLIENT_ID": "a", "AUTHZ_CLIENT_SECRET": "s", "AUTHZ_ISSUER": "https://a.example"}
    done = programs.run(folder=tmp_path, command=(sys.executable, "-c", program), **variables)

    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")


URL, OTHER = "http://127.0.0.1:9/token", "http://127.0.0.1:9/other"


@pytest.mark.parametrize(
    ("flags", "variables", "asked"),
    [
        ((), {"AUTHZ_TOKEN_URL": URL}, URL),
        ((), {"AUTHZ_TOKEN_URL": URL, "AUTHZ_ISSUER": "https://a.example"}, URL),
        (("--token-url", OTHER), {"AUTHZ_TOKEN_URL": URL, "AUTHZ_ISSUER": "https://a.example"}, OTHER),
        (("--issuer", "http://127.0.0.1:9"), {"AUTHZ_TOKEN_URL": URL}, "http://127.0.0.1:9/oauth2/token"),
    ],
)
def test_a_token_is_asked_for_as_variables_say_and_flags_override(
    tmp_path: Path, flags: tuple[str, ...], variables: dict[str, str], asked: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    credentials = {"AUTHZ_CLIENT_ID": "a", "AUTHZ_CLIENT_SECRET_FILE": str(secret)}
    done = programs.run("token", *flags, folder=tmp_path, **credentials, **variables)

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"authz: no token from {asked}: ")


def test_an_issuer_and_an_endpoint_as_flags_are_one_too_many(tmp_path: Path) -> None:
    both = ("--issuer", "https://a.example", "--token-url", URL)
    done = programs.run("token", "--client-id", "a", *both, folder=tmp_path, AUTHZ_CLIENT_SECRET="s")

    assert (done.returncode, done.stderr) == (2, "authz: issuer and token_url: give one of them\n")


def test_an_option_that_resembles_none_is_likened_to_none(tmp_path: Path) -> None:
    done = programs.run("token", "--config", "authz.yaml", folder=tmp_path)

    assert (done.returncode, done.stderr) == (2, "authz: Unknown option: --config. See --help.\n")


def test_a_mistake_in_an_option_repeats_nothing_that_may_be_a_token(tmp_path: Path) -> None:
    said = [
        programs.run("token", "--client-id", "a", *more, folder=tmp_path).stderr
        for more in (("se.cr.et",), ("--tokn=se.cr.et",), ("--tokn", "se.cr.et"))
    ]

    assert said == [
        "authz: too many arguments: 1; options begin with --, see --help\n",
        *["authz: Unknown option: --tokn. Did you mean --token-url?\n"] * 2,
    ]


@pytest.mark.parametrize(("name", "parser"), [("token", of_token), ("healthcheck", of_healthcheck)])
def test_the_list_of_all_commands_knows_every_option_of_a_plain_one(name: str, parser: object) -> None:
    from authz.cli.plain import listed  # noqa: PLC0415 - loads cyclopts

    options = {each.dest for each in parser().options}  # type: ignore[operator]

    assert listed.__dict__[name].__signature__.parameters.keys() == options


def test_each_command_stands_in_one_group_of_help(tmp_path: Path) -> None:
    done = programs.run("--help", folder=tmp_path, COLUMNS="100")
    titles = [line.split("─")[1].strip() for line in done.stdout.splitlines() if line.startswith("╭")]
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("│ ") and line[2] not in " -"]

    assert titles == [*COMMANDS, "Help"]
    assert sorted(listed) == sorted(names())
    assert sorted(names()) == sorted(set(names()))


def test_options_of_a_server_are_in_the_groups_of_the_settings(tmp_path: Path) -> None:
    done = programs.run("serve", "--help", folder=tmp_path, COLUMNS="160")
    panels = re.split(r"^╭─ (.*?) ─+╮$", done.stdout, flags=re.MULTILINE)[1:]
    shown = {
        title: set(re.findall(r"^│ --([a-z0-9-]+)", text, re.MULTILINE))
        for title, text in zip(panels[::2], panels[1::2], strict=True)
    }
    grouped = {title: {flag(name) for name in names if name not in SECRETS} for title, names in GROUPS.items()}

    assert list(shown) == ["Parameters", *GROUPS]
    assert shown == {"Parameters": {"check-config"}, **grouped}
