import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import grpc
import httpx2
import pytest

from authz.demo.issuer.directory import Application
from authz.demo.issuer.signing import SigningKey
from authz.demo.processes import Envoy
from authz.demo.stack import Stack
from authz.envoy.config.formats import Ingress, bootstrap
from authz.server.serving.server import EngineName
from tests.doubles import PATIENCE, m2m_claims
from tests.e2e.mesh import Mesh, grpc_echo
from tests.e2e.printed import Config, Start, manager, streaming_echo
from tests.interceptors.client import Silence
from tests.interceptors.servers import channel_to
from tests.interceptors.service import KINDS


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(scope="module")
def sign(ec_key: SigningKey) -> Callable[..., str]:
    """Return a function that signs a good token, or what its arguments make of one."""
    return lambda **changes: ec_key.sign(m2m_claims(time.time(), **changes))


@pytest.fixture
def silence() -> Iterator[Silence]:
    silence = Silence()
    yield silence
    silence.end()


# ---- The demonstration: issuer, authorization server, Envoy, and a backend with our interceptor ----
# Until the last test of this folder: servers and Envoys that went on would take part of the machine from all others.


@pytest.fixture(scope="package", params=get_args(EngineName))
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Return each engine of the authorization servers in turn."""
    engine: EngineName = request.param
    return engine


@pytest.fixture(scope="package")
def stack(engine: EngineName) -> Iterator[Stack]:
    with Stack(engine) as stack:
        yield stack


@pytest.fixture(scope="package")
def acme(stack: Stack) -> Application:
    return stack.directory.applications[0]


@pytest.fixture(scope="package")
def globex(stack: Stack) -> Application:
    return stack.directory.applications[1]


@pytest.fixture(scope="package")
def mint(stack: Stack) -> Iterator[Callable[..., str]]:
    """Return a function that has the issuer sign any token of an application."""
    with httpx2.Client(base_url=stack.issuer_url, trust_env=False, timeout=PATIENCE) as issuer:

        def mint(application: Application, **order: Any) -> str:
            response = issuer.post("/dev/tokens", json={"client_id": application.client_id, **order})
            return str(response.raise_for_status().json()["access_token"])

        yield mint


class Doors(NamedTuple):
    """Both ways to the backend."""

    envoy: grpc.Channel
    direct: grpc.Channel


@pytest.fixture(scope="package")
def doors(stack: Stack) -> Iterator[Doors]:
    with channel_to(stack.target) as envoy, channel_to(stack.backend["grpc"]) as direct:
        yield Doors(envoy, direct)


# ---- A mesh whose upstream believes everything ----


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory, ec_key: SigningKey, engine: EngineName) -> Iterator[Mesh]:
    # A short path: that of a Unix socket has 107 characters at the most.
    folder: Path = tmp_path_factory.mktemp("mesh")
    with Mesh(folder, ec_key, engine) as mesh:
        yield mesh


@pytest.fixture(scope="package")
def mesh_channel(mesh: Mesh) -> Iterator[grpc.Channel]:
    with channel_to(mesh.target) as channel:
        yield channel


# ---- The printed bootstrap, without the check ----


@pytest.fixture
def upstream() -> Iterator[str]:
    with grpc_echo() as address:
        yield address


@pytest.fixture
def streaming_upstream() -> Iterator[str]:
    with streaming_echo() as address:
        yield address


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts an Envoy with the printed bootstrap; the check is left out, since all may call."""
    with contextlib.ExitStack() as running:

        def start(change: Callable[[Config], object] = bool, listen: str = "127.0.0.1:0", **options: Any) -> Envoy:
            made = bootstrap(Ingress(authz=["127.0.0.1:9"], listen=listen, admin="localhost:0", **options)).data
            del manager(made)["http_filters"][0]
            change(made)
            proxy = Envoy(made, tmp_path)
            running.callback(proxy.stop)
            return proxy

        yield start
