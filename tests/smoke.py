"""Try an installed wheel: what it imports, its commands, its .proto files, one real token.

Run it with the interpreter that has the wheel, anywhere but in the checkout. The
variable PROTOC names the compiler for the .proto files.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

import authz
import authz.testing
import interceptors
import interceptors.aio

AUTHZ = Path(sys.executable).with_name("authz")
ISSUER = "https://smoke.example.com"
AUDIENCE = "client_smoke"

ORDERS = """
syntax = "proto3";
package orders;
import "authz/v1/policy.proto";
service OrderService {
  rpc GetOrder(GetOrderRequest) returns (GetOrderResponse) {
    option (authz.v1.access) = { scopes: "orders:read" introspect: { max_age: { seconds: 0 } } };
  }
}
message GetOrderRequest {
  string organization_id = 1 [(authz.v1.organization) = true];
}
message GetOrderResponse {}
"""
READ_ORDERS = """
import sys
sys.path.append({!r})
import orders_pb2
from authz.policy.protos.access import access_of_services
print(access_of_services(["orders.OrderService"]))
"""

ALLOWED, DENIED, MISCONFIGURED, UNDECIDED = range(4)


def main() -> None:
    here = Path.cwd()
    for package in (authz, interceptors, interceptors.aio):
        check(f"{package.__name__} is not the checkout's", "site-packages" in str(package.__file__))
    check("py.typed is shipped", Path(authz.__file__).with_name("py.typed").exists())

    static = Path(authz.__file__).with_name("server") / "admin" / "static"
    check(
        "the admin page is shipped", {"index.html", "admin.css", "admin.js"} <= {path.name for path in static.iterdir()}
    )
    page = str(metadata("grpc-org-authz").json["description"])
    check("the package page has no relative link", relative_links(page) == [] and "docs/index.md)" in page)
    check("authz --help", "verify" in run("--help"))
    check("authz --version", version("grpc-org-authz") in run("--version"))
    check_protos(Path(run("protos").strip()), here)

    key = JWK.generate(kty="RSA", size=2048, kid="smoke", use="sig", alg="RS256")
    jwks = here / "jwks.json"
    jwks.write_text(json.dumps({"keys": [key.export_public(as_dict=True)]}))
    verify = ("verify", "--issuer", ISSUER, "--audience", AUDIENCE)
    token = sign(key)
    check("a real token is allowed", token[:20] not in run(*verify, "--jwks", str(jwks), stdin=token))
    run(*verify, "--jwks", str(jwks), token)
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload}.{signature[::-1]}"
    run(*verify, "--jwks", str(jwks), stdin=forged, status=DENIED)
    run(*verify, "--jwks", str(here / "missing.json"), stdin=token, status=MISCONFIGURED)
    # Port 9 (discard) has no HTTP server: the keys cannot be had.
    run(*verify, "--jwks-url", "http://127.0.0.1:9/jwks", stdin=token, status=UNDECIDED)
    check_testing()


def relative_links(page: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)]*)\)", page) if not link.startswith(("https://", "#"))]


def check(what: str, holds: object) -> None:
    print("ok  " if holds else "FAIL", what)
    if not holds:
        sys.exit(1)


def run(*arguments: str, stdin: str = "", status: int = ALLOWED) -> str:
    done = subprocess.run([AUTHZ, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != status or "Traceback" in done.stderr:
        print(done.stdout, done.stderr, sep="\n")
    check(f"authz {arguments[0]} exits {status}", done.returncode == status and "Traceback" not in done.stderr)
    return done.stdout


def sign(key: JWK) -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "client_partner",
        "client_id": "client_partner",
        "org_id": "org_01SMOKE",
        "jti": "smoke-1",
        "iat": now,
        "exp": now + 300,
    }
    jws = JWS(json.dumps(claims))
    jws.add_signature(key, protected=json.dumps({"alg": "RS256", "kid": "smoke", "typ": "JWT"}))
    return jws.serialize(compact=True)


def check_testing() -> None:
    points = entry_points(group="pytest11", name="authz")
    check("pytest finds its plugin", [point.value for point in points] == ["authz.testing.plugin"])
    try:
        refused = not authz.testing.Issuer().verifier()
    except RuntimeError:
        refused = True
    check("a program that is no test has no test credentials", refused)
    authz.testing.allow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        issuer = authz.testing.Issuer()
        principal = issuer.verifier().verify(issuer.token("org_acme"))
    check("unless it allows them", principal.org_id == "org_acme")


def check_protos(folder: Path, out: Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    check(f"{len(files)} .proto files are shipped", {"authz/v1/policy.proto", "authz/v1/principal.proto"} <= set(files))
    compiler = shlex.split(os.environ["PROTOC"])
    with tempfile.NamedTemporaryFile(dir=out) as descriptors:
        command = [*compiler, f"--proto_path={folder}", f"--descriptor_set_out={descriptors.name}", *files]
        check("they compile", subprocess.run(command, check=False).returncode == 0)
    (out / "orders.proto").write_text(ORDERS)
    command = [*compiler, f"--proto_path={out}", f"--proto_path={folder}", f"--python_out={out}", "orders.proto"]
    check("a user's own imports them", subprocess.run(command, check=False).returncode == 0)
    program = [sys.executable, "-I", "-c", READ_ORDERS.format(str(out))]
    read = subprocess.run(program, check=False, capture_output=True, text=True).stdout
    check("and its options are read", "frozenset({'orders:read'})" in read)


if __name__ == "__main__":
    main()
