"""Spend an operator's first afternoon: ``python afternoon.py`` in any folder.

A policy is written with the schema that its first line names. A set-up with ten faults is put right, one look of
``authz doctor`` after the other, by the remedies that it names. Then the server starts, and allows a call. It needs
jsonschema, and the package with its extra demo beside this interpreter, so that it runs beside an installed wheel too.
"""

import http.client
import ipaddress
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jsonschema
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.demo.store import store_path

AUTHZ = str(Path(sys.executable).with_name("authz"))
PATIENCE = 120.0
ACME = "org_01JYACME000000000000000001"
CLIENT_ID, CLIENT_SECRET = "client_01JYACME000000000000000002", "acme-development-secret"
AUDIENCE = "client_01JYENV0000000000000000000"
METHOD = "/authz.demo.v1.LedgerService/PostEntry"

MODELINE = "# yaml-language-server: $schema="
POLICY = """\
name: ledger
organizations:
  {acme}: {{groups: [paying], status: {status}}}
allow_rules:
  - name: paying
    source: {{groups: [paying]}}
"""


class Front(ThreadingHTTPServer):
    """TLS in front of the development issuer.

    Attributes:
        behind: the address of the issuer.
        ahead: seconds by which its clock is ahead.
        has_keys: whether it publishes any key.

    """

    behind = ""
    ahead = 0.0
    has_keys = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Forwarding)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)


class _Forwarding(BaseHTTPRequestHandler):
    server: Front

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._forward(b"")

    def do_POST(self) -> None:
        self._forward(self.rfile.read(int(self.headers["content-length"])))

    def _forward(self, body: bytes) -> None:
        asked = http.client.HTTPConnection(self.server.behind, timeout=PATIENCE)
        names = ("authorization", "content-type")
        passed = {name: value for name, value in self.headers.items() if name.lower() in names}
        asked.request(self.command, self.path, body, passed)
        answer = asked.getresponse()
        content = answer.read()
        asked.close()
        if self.path.endswith("/jwks") and not self.server.has_keys:
            content = b'{"keys": []}'
        date = datetime.now(UTC) + timedelta(seconds=self.server.ahead)
        self.send_response_only(answer.status)
        self.send_header("date", format_datetime(date, usegmt=True))
        self.send_header("content-type", answer.headers["content-type"])
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Afternoon:
    """A folder with a set-up that has ten faults; a context manager.

    Args:
        folder: an empty one.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends = ExitStack()
        self._front = self._issuer()
        port = self._front.server_port
        self._right = f"https://127.0.0.1:{port}"
        self._busy = self._ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._store = free_port()
        self._settings: dict[str, Any] = {
            "issuer": f"https://localhost:{port}",
            "audience": "client_01JYANOTHER",
            "listen": f"127.0.0.1:{self._busy.getsockname()[1]}",
            "policy": "policy.yaml",
            "introspect_max_age": 10,
            "introspection_client_id": CLIENT_ID,
            "introspection_client_secret_file": "introspection",
            "store": f"redis://127.0.0.1:{self._store}",
        }
        self._write("introspection", "not-the-secret")
        self._write_policy(status="suspended")
        self._write_envoy(f"127.0.0.1:{free_port()}")
        self._front.ahead, self._front.has_keys = 120.0, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def spend(self) -> None:
        """Write the policy, put everything right, and have the server allow a call."""
        self._use_the_schema()
        self._see(
            {
                "issuer-untrusted-certificate",
                "token-unavailable",
                "policy-allows-no-caller",
                "envoy-asks-elsewhere",
                "listen-in-use",
                "store-unavailable",
            }
        )
        self._settings["ca_file"] = "authority.pem"
        self._write_policy(status="active")
        self._busy.close()
        self._write_envoy(self._settings["listen"])
        self._start_store()
        self._see(
            {"issuer-mismatch", "clock-skew", "keys-none-usable", "token-undecided", "introspection-wrong-secret"}
        )
        self._settings["issuer"] = self._right
        self._front.ahead, self._front.has_keys = 0.0, True
        self._write("introspection", CLIENT_SECRET)
        self._see({"token-wrong-audience"})
        self._settings["audience"] = AUDIENCE
        self._see(())
        self._serve()

    def _use_the_schema(self) -> None:
        schema = json.loads(self._run("schema", "policy"))
        policy = self._folder.joinpath("policy.yaml").read_text()
        first, _, rest = policy.partition("\n")
        expect("the first line names the schema", first, f"{MODELINE}{schema['$id']}")
        validator = jsonschema.Draft202012Validator(schema)
        expect("an editor finds nothing wrong", [*validator.iter_errors(yaml.safe_load(rest))], [])
        self._run("policy", "check", "policy.yaml")
        wrong = policy.replace("allow_rules", "alow_rules")
        self._write("wrong.yaml", wrong)
        errors = [error.message for error in validator.iter_errors(yaml.safe_load(wrong))]
        expect("an editor finds a misspelled key", any("'alow_rules'" in error for error in errors), expected=True)
        told = self._run("policy", "check", "wrong.yaml", status=2)
        expect("so does the command", "did you mean 'allow_rules'" in told, expected=True)

    def _see(self, codes: Collection[str]) -> None:
        """Have ``authz doctor`` look, and name exactly these faults, each with a remedy."""
        options = ["--config", "authz.yaml", "--envoy-config", "envoy.yaml", "--client-id", CLIENT_ID, "--json"]
        self._write("authz.yaml", yaml.safe_dump(self._settings))
        report = json.loads(self._run("doctor", *options, status=1 if codes else 0))
        faults = [each for each in report["findings"] if each["code"]]
        expect("the doctor names", {each["code"] for each in faults}, set(codes))
        expect("each has a remedy", [each["code"] for each in faults if not each["remedy"]], [])

    def _serve(self) -> None:
        self._start(AUTHZ, "serve", "--config", "authz.yaml")
        deadline = time.monotonic() + PATIENCE
        health = [AUTHZ, "healthcheck", "--config", "authz.yaml"]
        while subprocess.run(health, cwd=self._folder, env=variables(), check=False, capture_output=True).returncode:
            expect("the server is ready in time", time.monotonic() < deadline, expected=True)
        fetch = ["token", "--issuer", self._right, "--ca-file", "authority.pem", "--client-id", CLIENT_ID]
        self._write("token", self._run(*fetch))
        asked = ["check", "--server", self._settings["listen"], "--method", METHOD]
        told = self._run(*asked, "--token", "token", "--json")
        expect("a call with a token is allowed", json.loads(told)["verdict"], "allowed")
        self._run(*asked, status=1)

    def _issuer(self) -> Front:
        certificate = self._folder / "issuer.pem"
        self._write("authority.pem", self_signed(certificate))
        front = Front(certificate)
        threading.Thread(target=front.serve_forever, daemon=True).start()
        self._ends.callback(front.server_close)
        self._ends.callback(front.shutdown)
        port, url = free_port(), f"https://127.0.0.1:{front.server_port}"
        front.behind = f"127.0.0.1:{port}"
        self._start(AUTHZ, "issuer", "--listen", front.behind, "--issuer-url", url)
        wait_for(port)
        return front

    def _start_store(self) -> None:
        durable = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"]
        server = store_path()
        expect("the extra demo has brought a store", server is not None, expected=True)
        self._start(str(server), "--port", str(self._store), "--bind", "127.0.0.1", *durable)
        wait_for(self._store)

    def _start(self, *command: str) -> None:
        self._ends.enter_context(running(command, self._folder))

    def _run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [AUTHZ, *arguments],
            cwd=self._folder,
            env=variables(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        expect(f"authz {' '.join(arguments)} ends with {status}: {done.stdout}", done.returncode, status)
        return done.stdout

    def _write(self, name: str, text: str) -> None:
        self._folder.joinpath(name).write_text(text, encoding="utf-8")

    def _write_policy(self, status: str) -> None:
        schema = json.loads(self._run("schema", "policy"))["$id"]
        self._write("policy.yaml", f"{MODELINE}{schema}\n{POLICY.format(acme=ACME, status=status)}")

    def _write_envoy(self, address: str) -> None:
        self._write("envoy.yaml", self._run("envoy-config", "--authz", address, "--upstream", "127.0.0.1:50051"))


def expect(what: str, found: object, expected: object) -> None:
    """Raise an error that says what is not as it must be."""
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, not {expected!r}")


def variables() -> dict[str, str]:
    """Return this process's, with the secret of a client, and without other settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
    return {**inherited, "AUTHZ_CLIENT_SECRET": CLIENT_SECRET}


@contextmanager
def running(command: Sequence[str], folder: Path) -> Iterator[None]:
    """Run a program to the end of the block."""
    with (folder / "log").open("a") as log:
        program = subprocess.Popen(command, cwd=folder, env=variables(), stdout=log, stderr=log)
        try:
            yield
        finally:
            program.terminate()
            program.wait(PATIENCE)


def free_port() -> int:
    """Return a port of the loopback that is free, and that no connection gets for itself meanwhile."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def wait_for(port: int) -> None:
    """Wait until a program listens at a port of the loopback."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        except ConnectionRefusedError:
            expect(f"something listens at {port} in time", time.monotonic() < deadline, expected=True)
            time.sleep(0.05)
        else:
            return


def self_signed(file: Path) -> str:
    """Write a certificate for the loopback into a file, with its key, and return it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "afternoon")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(certificate + private)
    return certificate.decode()


def main() -> None:
    """Spend it in a folder that is removed afterwards."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Afternoon(Path(folder)) as afternoon:
        afternoon.spend()
    print(f"an afternoon: ten faults found and put right, {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
