"""The tutorial is true: all that it says, typed in an empty folder, is answered as it says."""

import os
import sys
from pathlib import Path

from authz.demo.envoy_binary import envoy_path
from tests.programs import environment
from tests.tutorial import Step, files, follow, steps

TEXT = (Path(__file__).parents[2] / "docs/tutorial.md").read_text(encoding="utf-8")
INSTALLED, _, TYPED = TEXT.partition("\n## 2. ")


def test_every_command_is_answered_as_printed(tmp_path: Path) -> None:
    """All but the installation, which CI makes from the wheel."""
    folders = [Path(sys.executable).parent, envoy_path().parent]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])

    assert follow(TYPED, tmp_path, environment({"PATH": path})) == []


def test_all_that_is_installed_is_the_package() -> None:
    assert [step.command for step in steps(INSTALLED)] == [
        "python3 -m venv .venv",
        ". .venv/bin/activate",
        "pip install 'grpc-org-authz[demo]'",
    ]


def test_every_program_is_saved() -> None:
    assert set(files(TYPED)) == {"server.py", "stranger.py", "partner.py", "policy.yaml"}


def test_another_answer_than_the_printed_one_is_missed(tmp_path: Path) -> None:
    text = "```console\n$ export NAME=Acme\n$ echo $NAME\nGlobex\n$ echo a \\\n    b\na b\n```\n"

    assert steps(text)[2] == Step("echo a \\\n    b", ["a b"])
    assert follow(text, tmp_path, dict(os.environ)) == [("echo $NAME", ["Acme"])]
