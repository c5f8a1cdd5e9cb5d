"""Our copy of Envoy's messages has the field numbers, names and types of the original."""

import json
import subprocess
from pathlib import Path

import pytest

from authz.envoy.v3 import access_log_pb2, discovery_pb2, external_auth_pb2
from tests import envoy_outline

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-xds/bin/python"

STATUS_CODE = "CheckResponse.denied_response.status.code"


@pytest.fixture(scope="module")
def ours() -> dict[str, str]:
    return envoy_outline.outline(external_auth_pb2.DESCRIPTOR)


@pytest.fixture(scope="module")
def theirs() -> dict[str, str]:
    if not PYTHON.exists():
        pytest.fail("Envoy's own messages are not installed in .venv-xds: `make test` does that.", pytrace=False)
    program = [PYTHON, "-I", "-W", "error", envoy_outline.__file__]
    result = subprocess.run(program, check=True, capture_output=True, timeout=120)
    return json.loads(result.stdout)


def test_every_field_is_as_in_envoy(ours, theirs):
    assert ours == {path: theirs.get(path) for path in ours}


def test_nothing_of_envoys_is_left_out_but_status_codes(ours, theirs):
    left_out = {path.partition("=")[0] for path in theirs.keys() - ours.keys()}
    assert left_out == {STATUS_CODE, STATUS_CODE.replace("denied", "error")}


def test_every_field_of_discovery_and_of_the_access_log_is_as_in_envoy():
    names = {
        **discovery_pb2.DESCRIPTOR.message_types_by_name,
        **access_log_pb2.DESCRIPTOR.message_types_by_name,
    }
    ours = envoy_outline.discovery({name: names[name] for name in envoy_outline.DISCOVERY})
    program = [PYTHON, "-I", "-W", "error", envoy_outline.__file__, json.dumps(sorted(ours))]
    result = subprocess.run(program, check=True, capture_output=True, timeout=120)

    assert json.loads(result.stdout) == ours
