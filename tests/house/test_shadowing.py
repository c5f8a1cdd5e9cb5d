"""Where another ``authz`` or ``interceptors`` stands in place of ours, its file is named, and a second way is open."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import grpc_org_authz.interceptors
import grpc_org_authz.interceptors.aio
import interceptors
import interceptors.aio

ROOT = Path(__file__).parents[2]
FACES = [(grpc_org_authz.interceptors, interceptors), (grpc_org_authz.interceptors.aio, interceptors.aio)]

# A handler sees its caller, whichever way its interceptor was imported.
SERVED = """
from concurrent.futures import ThreadPoolExecutor
import os, time
# A connection may be told of the end of the server before its own, which gRPC writes to standard error as information.
os.environ["GRPC_VERBOSITY"] = "ERROR"
import grpc, interceptors
from authz import Verifier, current_principal
from authz.demo.issuer.signing import SigningKey
from grpc_org_authz.interceptors import AuthzInterceptor, bearer_interceptors
from grpc_org_authz.interceptors.aio import AuthzInterceptor as OfAio
from tests.doubles import AUDIENCE, ISSUER, jwks, m2m_claims

key = SigningKey.generate("k", "ES256")
verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=jwks(key), algorithms=["ES256"])
server = grpc.server(ThreadPoolExecutor(2), interceptors=[AuthzInterceptor(verifier)])
handler = grpc.unary_unary_rpc_method_handler(lambda request, context: current_principal().org_id.encode())
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", {"C": handler})])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    bearer = [("authorization", f"Bearer {key.sign(m2m_claims(time.time()))}")]
    print(interceptors.MINE, channel.unary_unary("/a.B/C")(b"", metadata=bearer).decode())
server.stop(None)
print(AuthzInterceptor.__module__, OfAio.__module__)
"""


def run(program: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd=folder
    )


def written(file: Path, text: str) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(("second", "first"), FACES)
def test_each_name_is_the_same_object_by_both_ways(second, first):
    assert second.__all__ == first.__all__ == dir(second)
    assert all(getattr(second, name) is getattr(first, name) for name in first.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Interceptor'"):
        second.Interceptor  # noqa: B018 - what a typing error does


def test_the_second_way_loads_no_module_twice(tmp_path):
    program = """
import sys
from grpc_org_authz.interceptors import AuthzInterceptor
from grpc_org_authz.interceptors.aio import bearer_interceptors
print(*(name for name in sys.modules if name.startswith("grpc_org_authz")))
"""
    ours = "grpc_org_authz grpc_org_authz.shadowing grpc_org_authz.interceptors grpc_org_authz.interceptors.aio"

    assert set(run(program, tmp_path).stdout.split()) == set(ours.split())


@pytest.mark.parametrize("name", ["interceptors/__init__.py", "interceptors.py"])
def test_interceptors_work_beside_a_programs_own(name, tmp_path):
    written(tmp_path / name, "MINE = 'mine'\n")

    done = run(f"import sys; sys.path.append({str(ROOT)!r})\n{SERVED}", tmp_path)

    assert done.stderr == ""
    assert done.stdout.split()[0] == "mine"
    assert done.stdout.split()[1].startswith("org_")
    assert done.stdout.split()[2:] == ["grpc_org_authz._interceptors.server", "grpc_org_authz._interceptors.aio.server"]


def test_python_itself_names_the_file_that_shadows_interceptors(tmp_path):
    file = written(tmp_path / "interceptors/__init__.py", "")

    done = run("from interceptors import AuthzInterceptor", tmp_path)

    assert done.stderr.endswith(f"ImportError: cannot import name 'AuthzInterceptor' from 'interceptors' ({file})\n")


@pytest.mark.parametrize("name", ["authz/__init__.py", "authz.py"])
@pytest.mark.parametrize(
    "program",
    ["import interceptors", "import interceptors.aio", "import grpc_org_authz", "import grpc_org_authz.interceptors"],
)
def test_another_authz_is_named_with_the_remedy(name, program, tmp_path):
    file = written(tmp_path / name, "")

    done = run(program, tmp_path)

    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {file} is imported as 'authz' in place of that of grpc-org-authz; rename it, "
        "or begin the program in another folder"
    )


@pytest.fixture
def installed(tmp_path):
    """Return a folder with this distribution and another, named authz, as pip installs both: into the same folders."""
    for package in ("authz", "grpc_org_authz", "interceptors"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    written(tmp_path / "authz-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: authz\nVersion: 1.0\n")
    written(tmp_path / "authz-1.0.dist-info/RECORD", "authz/__init__.py,,\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("__init__.py", "import interceptors"),
        ("__init__.py", "import grpc_org_authz"),
        ("errors.py", "from authz import Verifier"),
    ],
)
def test_a_distribution_that_has_overwritten_our_files_is_named(name, program, installed):
    file = written(installed / "authz" / name, "class Authz: ...\n")

    done = run(program, installed)

    assert done.stderr.splitlines()[-1] == (
        f"ImportError: {file} is of the distribution 'authz', which has overwritten files of grpc-org-authz; they "
        "cannot be installed together: pip uninstall authz, and pip install --force-reinstall --no-deps grpc-org-authz"
    )
