import re
import signal
import socket
import subprocess
import sys
import threading

import httpx2
import pytest

from authz.demo.issuer.program import Issuer, IssuerServer, serve_issuer
from authz.demo.issuer.signing import load_keys
from authz.errors import ConfigError
from tests.doubles import PATIENCE

FORM = {
    "grant_type": "client_credentials",
    "client_id": "client_01JYACME000000000000000002",
    "client_secret": "acme-development-secret",
}


def port_of(server):
    return int(server.address.rpartition(":")[2])


@pytest.fixture
def new_server(ec_key):
    def new_server(**options):
        return IssuerServer(Issuer(keys=[ec_key]), **options)

    return new_server


def test_url_is_known_once_it_serves(new_server, web):
    with new_server() as server:
        issuer = web.get(f"{server.url}/.well-known/openid-configuration").json()["issuer"]

        assert server.url == server.address == issuer
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)


def test_host_name_of_the_address_is_kept_in_the_url(new_server):
    with new_server(listen="localhost:0") as server:
        assert server.url.startswith("http://localhost:")


def test_given_issuer_url_differs_from_the_address(ec_key, web):
    with IssuerServer(Issuer("https://acme.authkit.app", keys=[ec_key])) as server:
        token = web.post(f"{server.address}/oauth2/token", data=FORM).json()["access_token"]

        assert "https://acme.authkit.app" == server.url == ec_key.open(token)["iss"]


def test_server_makes_an_issuer_of_its_own(web):
    with IssuerServer() as server:
        assert web.post(f"{server.url}/oauth2/token", data=FORM).status_code == 200


def test_requests_are_counted_by_path(new_server, web):
    with new_server() as server:
        for _ in range(3):
            web.get(f"{server.url}/oauth2/jwks")
        web.get(f"{server.url}/missing?query")

        assert server.requests == {"/oauth2/jwks": 3, "/missing": 1}


def test_stop_leaves_no_thread_and_no_listener(new_server, web):
    before = threading.enumerate()
    with new_server() as server:
        web.get(server.url)

    # Those of other tests may end meanwhile.
    assert set(threading.enumerate()) <= set(before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(server)))


def test_stop_does_not_wait_for_idle_connections(new_server):
    with new_server() as server, httpx2.Client(base_url=server.url, timeout=PATIENCE) as client:
        client.get("/oauth2/jwks")
        server.stop()

        with pytest.raises(httpx2.ConnectError):
            client.get("/oauth2/jwks")


def test_stopped_server_starts_again_as_it_was(new_server, web):
    with new_server() as server:
        url, keys = server.url, web.get(f"{server.url}/oauth2/jwks").json()
        server.stop()
        server.start()

        assert (url, keys) == (server.url, web.get(f"{url}/oauth2/jwks").json())


def test_stop_twice_is_harmless(new_server):
    with new_server() as server:
        server.stop()
        server.stop()


def test_server_cannot_start_twice(new_server):
    with new_server() as server, pytest.raises(RuntimeError):
        server.start()


def test_server_that_was_never_started_needs_no_stop(new_server):
    new_server().stop()


def test_port_in_use_is_one_clear_line(new_server):
    with new_server() as server, pytest.raises(ConfigError, match=r"^listen: [^\n]*Address already in use[^\n]*$"):
        new_server(listen=f"127.0.0.1:{port_of(server)}").start()


@pytest.mark.parametrize(
    "listen", ["", "9190", ":9190", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"]
)
def test_listen_must_be_host_and_port(new_server, listen):
    with pytest.raises(ConfigError, match=r"^listen: .* must be HOST:PORT"):
        new_server(listen=listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"])
def test_addresses_others_can_reach_are_refused(new_server, listen):
    with pytest.raises(ConfigError, match=r"^listen: .* can be reached from other machines.*--allow-remote"):
        new_server(listen=listen).start()


def test_host_that_is_no_host_is_refused(new_server):
    with pytest.raises(ConfigError, match=r"^listen: .* is not a known host"):
        new_server(listen="no host:0").start()


def test_remote_address_can_be_allowed(ec_key, web):
    issuer = Issuer("http://issuer.example:9190", keys=[ec_key])
    with IssuerServer(issuer, listen="0.0.0.0:0", allow_remote=True) as server:
        assert web.get(f"http://127.0.0.1:{port_of(server)}/oauth2/jwks").status_code == 200


def test_every_address_is_no_issuer_url(new_server):
    with pytest.raises(ConfigError, match=r"^issuer_url: 'http://0\.0\.0\.0:\d+'"):
        new_server(listen="0.0.0.0:0", allow_remote=True).start()


@pytest.fixture
def program(tmp_path):
    """Start ``serve_issuer`` as a program; returns the process and the URL that it announces."""
    script = tmp_path / "program.py"
    script.write_text(
        "import sys\n"
        "from authz.demo.issuer.program import serve_issuer\n"
        "options = dict(argument.split('=', 1) for argument in sys.argv[1:])\n"
        "serve_issuer(listen='127.0.0.1:0', announce=lambda url: print(url, flush=True), **options)\n"
    )
    started = []

    def start(*options):
        process = subprocess.Popen(
            [sys.executable, "-W", "error", script, *options],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_program_in_peace(program, number, web):
    process, url = program()
    web.get(url)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)

    assert (process.returncode, stdout) == (0, "")
    assert f"development issuer listening on {url} (never use it in production)" == stderr.splitlines()[0]


def test_banner_shows_clients_secrets_and_a_command(program):
    process, url = program("issuer_url=http://issuer.example")
    process.terminate()
    _, stderr = process.communicate(timeout=120)

    assert "Acme Freight  org_01JYACME000000000000000001" in stderr
    assert "client_01JYACME000000000000000002  acme-development-secret" in stderr
    assert "issuer    http://issuer.example\n" in stderr
    assert f"curl {url}/oauth2/token -d grant_type=client_credentials -d client_id=" in stderr


def test_keys_in_a_file_outlive_the_program(program, tmp_path, web):
    option = f"keys={tmp_path / 'keys.json'}"
    process, url = program(option)
    web.post(f"{url}/dev/rotate")
    before = web.get(f"{url}/oauth2/jwks").json()
    process.terminate()
    process.wait(timeout=120)
    _, url = program(option)

    assert before == web.get(f"{url}/oauth2/jwks").json()
    assert len(load_keys(tmp_path / "keys.json")) == 2


def test_program_serves_the_organizations_of_a_file(program, tmp_path, web):
    (tmp_path / "orgs.yaml").write_text(
        "audience: client_env\n"
        "organizations:\n"
        "  - id: org_1\n"
        "    name: Initech\n"
        "    applications:\n"
        "      - {client_id: client_1, client_secret: initech secret, name: Printer, scopes: [], type: m2m}\n"
    )
    _, url = program(f"config={tmp_path / 'orgs.yaml'}")
    form = {**FORM, "client_id": "client_1", "client_secret": "initech secret"}

    assert web.post(f"{url}/oauth2/token", data=form).status_code == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"listen": "0.0.0.0:0"}, "listen: 0.0.0.0 can be reached", id="remote"),
        pytest.param({"listen": "nonsense"}, "listen: 'nonsense'", id="listen"),
        pytest.param({"issuer_url": "nonsense"}, "issuer_url: 'nonsense'", id="issuer-url"),
        pytest.param({"config": "/nowhere/orgs.yaml"}, "/nowhere/orgs.yaml: cannot be read", id="config"),
        pytest.param({"keys": "/nowhere/keys.json"}, "/nowhere/keys.json: cannot be written", id="keys"),
    ],
)
def test_wrong_configuration_is_one_clear_line(options, message):
    with pytest.raises(ConfigError, match=rf"^{re.escape(message)}[^\n]*$"):
        serve_issuer(**{"listen": "127.0.0.1:0", **options})
    assert signal.default_int_handler is signal.getsignal(signal.SIGINT)
