"""``authz completion``: what a shell offers."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import programs
from tests.missing import leave_out

# What bash does when a user presses the tabulator at the end of the words.
COMPLETE = """
source authz.bash
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_authz
printf '%s\\n' "${COMPREPLY[@]}"
complete -p authz
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the script for each shell."""
    found: Path = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        done = programs.run("completion", shell, folder=found)
        assert (done.returncode, done.stderr) == (0, "")
        (found / f"authz.{shell}").write_text(done.stdout)
    return found


def offered(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        ["/bin/bash", "--norc", "-c", COMPLETE, "bash", "authz", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        timeout=programs.PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, how = done.stdout.splitlines()
    assert how == "complete -o default -F _authz authz"
    return [line for line in lines if line]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("serv",), {"serve"}),
        (("re",), {"reinstate", "replicas", "resume", "revoke"}),
        (("policy", "ex"), {"explain"}),
        (("serve", "--introspection-u"), {"--introspection-url"}),
        (("serve", "--log-level", ""), {"debug", "info", "warning", "error"}),
        (("token", "--auth-method", "client_secret_b"), {"client_secret_basic"}),
        (("healthcheck", "--ht"), {"--http", "--http-listen"}),
        (("completion", ""), {"bash", "zsh", "fish"}),
        (("policy", "check", "authz.z"), {"authz.zsh"}),
    ],
)
def test_bash_offers_commands_options_choices_and_files(
    folder: Path, words: tuple[str, ...], expected: set[str]
) -> None:
    assert set(offered(folder, *words)) == expected


def test_no_secret_is_offered_as_an_option(folder: Path) -> None:
    options = offered(folder, "serve", "--")

    assert "--admin-secret-file" in options
    assert "--admin-secret" not in options


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_itself_accepts_the_script(folder: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        leave_out(f"the completion of {shell}, which is not installed", "make ci-shells, on Debian and Ubuntu")
    done = subprocess.run(
        [shell, "-n", f"authz.{shell}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=programs.PATIENCE,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_a_mistake(tmp_path: Path) -> None:
    done = programs.run("completion", "tcsh", folder=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("authz: Invalid value")
