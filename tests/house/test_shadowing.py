"""Where another ``authz`` or ``interceptors`` stands in place of ours, its file is named, and a second way is open."""

import subprocess
import sys
from pathlib import Path

import pytest

import grpc_org_authz.interceptors
import grpc_org_authz.interceptors.aio
import interceptors
import interceptors.aio

FACES = [(grpc_org_authz.interceptors, interceptors), (grpc_org_authz.interceptors.aio, interceptors.aio)]

# A handler sees its caller, whichever way its interceptor was imported.
SERVED = """
from concurrent.futures import ThreadPoolExecutor
import time
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

    done = run(f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n{SERVED}", tmp_path)

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


def test_a_distribution_that_has_overwritten_our_files_is_named(tmp_path):
    """Both are installed into one folder, as pip does, the other one last."""
    root = Path(__file__).parents[2]
    for package in ("grpc_org_authz", "interceptors"):
        (tmp_path / package).symlink_to(root / package)
    for path in (root / "authz").iterdir():
        (tmp_path / "authz").mkdir(exist_ok=True)
        if path.name != "__init__.py":
            (tmp_path / "authz" / path.name).symlink_to(path)
    file = written(tmp_path / "authz/__init__.py", "class Authz: ...\n")
    written(tmp_path / "authz-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: authz\nVersion: 1.0\n")
    written(tmp_path / "authz-1.0.dist-info/RECORD", "authz/__init__.py,,\n")
    program = f"""
from pathlib import Path
import grpc_org_authz.shadowing as shadowing
shadowing._FOLDER = Path({str(tmp_path)!r})
print(shadowing.explained("authz"))
"""
    assert run(program, tmp_path).returncode == 1
    done = run(
        "import sys, types; sys.modules['grpc_org_authz'] = it = types.ModuleType('grpc_org_authz')\n"
        f"it.__path__ = [{str(tmp_path / 'grpc_org_authz')!r}]" + program,
        tmp_path,
    )

    assert done.stdout.startswith(
        f"{file} is of the distribution 'authz', which has overwritten files of grpc-org-authz;"
    )
    assert "pip uninstall authz, and pip install --force-reinstall --no-deps grpc-org-authz" in done.stdout
