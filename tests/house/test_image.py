"""The image holds what the program needs, and starts it as production wants it."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from tests.house.test_deploy import DEPLOY, ROOT, SHARED, containers, environment
from tests.programs import run


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def instruction(wanted: str) -> str:
    """Return the last of its kind, which is the one in force."""
    return [rest for word, rest in instructions() if word == wanted][-1]


def copied() -> set[str]:
    copies = [rest.split() for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return {source for sources in copies for source in sources[:-1]}


def test_the_image_copies_what_exists_and_nothing_else_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert all((ROOT / source).exists() for source in copied())
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == copied()
    assert "*" in ignored


def test_the_image_copies_all_that_the_wheel_needs() -> None:
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]
    about = project()["project"]
    assert {*wheel["packages"], *wheel["force-include"], "README.md", *about["license-files"]} <= copied()


def test_the_image_has_a_base_that_is_supported() -> None:
    about = project()["project"]
    base = re.fullmatch(r"PYTHON_IMAGE=python:(3\.\d+)-slim-[a-z]+", instruction("ARG"))
    assert base
    assert f"Programming Language :: Python :: {base[1]}" in about["classifiers"]
    assert [rest for word, rest in instructions() if word == "FROM"] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


def test_whatever_the_image_fetches_has_a_known_hash() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and re.search(r"pip .*(install|wheel) ", rest)]
    of_ours = [rest for rest in installs if rest.endswith(("--wheel-dir /wheels .", "/wheels/*.whl"))]
    assert all("--no-deps" in rest for rest in of_ours)
    assert "--no-build-isolation" in of_ours[0]
    fetching = [re.search(r"--require-hashes --requirement (\S+)$", rest) for rest in installs if rest not in of_ours]
    assert [found and found[1] for found in fetching] == ["locks/build.txt", "locks/image.txt"]


def test_the_image_runs_without_root_and_shell(tmp_path: Path) -> None:
    entrypoint, command = json.loads(instruction("ENTRYPOINT")), json.loads(instruction("CMD"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instruction("USER"))
    assert instruction("STOPSIGNAL") == "SIGTERM"
    assert Path(entrypoint[0]).name == "authz"
    assert run(*entrypoint[1:], *command, "--help", folder=tmp_path).returncode == 0


def test_the_image_exposes_the_ports_of_the_settings() -> None:
    settings = environment(SHARED / "settings.env")
    ports = [settings[name].rpartition(":")[2] for name in ("AUTHZ_LISTEN", "AUTHZ_HTTP_LISTEN")]
    assert instruction("EXPOSE").split() == ports
    assert {str(port["containerPort"]) for port in containers(SHARED)["authz"]["ports"]} == set(ports)


def test_the_image_asks_itself_with_a_command_that_there_is(tmp_path: Path) -> None:
    """Of its entry point, so that it is found without a shell and a PATH."""
    _, _, asked = instruction("HEALTHCHECK").partition(" CMD ")
    program, *arguments = json.loads(asked)
    assert program == json.loads(instruction("ENTRYPOINT"))[0]
    assert run(*arguments, "--help", folder=tmp_path).returncode == 0
