import os
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from authz.demo import envoy_binary
from authz.demo.envoy_binary import envoy_path
from authz.errors import ConfigError

ROOT = Path(__file__).parents[2]
XDS_PYTHON = ROOT / ".venv-xds/bin/python"


def test_it_is_a_real_envoy():
    done = subprocess.run([envoy_path(), "--version"], capture_output=True, text=True, check=True, timeout=120)

    assert "envoy" in done.stdout


def test_a_package_that_has_taken_the_name_of_its_module_does_not_hide_it():
    """As ``xds-protos`` does, which has a module ``envoy`` of its own."""
    theirs = subprocess.run(
        [XDS_PYTHON, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()
    # In the order in which they would lie on each other in one environment.
    path = os.pathsep.join([theirs, sysconfig.get_path("purelib")])
    program = """
import authz.call.refusal, authz.decisions.audit, envoy
from authz.demo.envoy_binary import envoy_path

print(envoy.__file__, envoy_path())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    module, found = done.stdout.split()

    assert module == "None" or module.startswith(theirs)
    assert found == str(envoy_path())


@pytest.mark.parametrize("is_on_path", [True, False])
def test_without_the_extra_one_on_the_path_is_taken(tmp_path, monkeypatch, is_on_path):
    def missing(_):
        raise PackageNotFoundError

    monkeypatch.setitem(vars(envoy_binary), "files", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    if is_on_path:
        own = tmp_path / "envoy"
        own.touch(mode=0o755)
        assert envoy_path() == own
    else:
        with pytest.raises(ConfigError, match=r"^envoy: not found; install the extra"):
            envoy_path()
