"""Try an installed wheel without any extra: what works then, and what says which extra it needs.

Run it with the interpreter that has the wheel, anywhere but in the checkout.
"""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import authz
from authz import ClientCredentials, Verifier
from authz.errors import ConfigError

AUTHZ = Path(sys.executable).with_name("authz")
OF_EXTRAS = ("cyclopts", "dotenv", "grpc_health", "pydantic", "redis", "rich", "uvicorn", "yaml")
# Port 9 (discard) has no server.
NOBODY = "http://127.0.0.1:9"

DONE, _DENIED, MISUSED, UNDECIDED = range(4)


def main() -> None:
    check("the package is not the checkout's", "site-packages" in str(authz.__file__))
    check("no extra is installed", not any(map(importlib.util.find_spec, OF_EXTRAS)))
    check("authz --version", version("grpc-org-authz") in run("--version"))
    check("authz protos", (Path(run("protos").strip()) / "authz/v1/policy.proto").exists())
    for command in ("token", "healthcheck"):
        check(f"authz {command} --help", f"usage: authz {command}" in run(command, "--help"))
    os.environ["AUTHZ_CLIENT_SECRET"] = "secret"
    said = run("token", "--client-id", "a", "--token-url", f"{NOBODY}/token", status=UNDECIDED)
    check("authz token asks", f"authz: no token from {NOBODY}/token" in said)
    check("authz healthcheck asks", "127.0.0.1:9191" in run("healthcheck", status=UNDECIDED))
    check("authz serve says what to install", "pip install 'grpc-org-authz[server]'" in run("serve", status=MISUSED))
    check("authz --help, too", "pip install 'grpc-org-authz[server]'" in run("--help", status=MISUSED))
    os.environ |= {"AUTHZ_CLIENT_ID": "a", "AUTHZ_ISSUER": "https://a.example", "AUTHZ_AUDIENCE": "b"}
    check("ClientCredentials.from_env()", ClientCredentials.from_env().client_id == "a")
    try:
        said = str(Verifier.from_env())
    except ConfigError as error:
        said = str(error)
    check("Verifier.from_env() says what to install", "pip install 'grpc-org-authz[settings]'" in said)


def check(what: str, holds: object) -> None:
    print("ok  " if holds else "FAIL", what)
    if not holds:
        sys.exit(1)


def run(*arguments: str, status: int = DONE) -> str:
    """Return what the command has written, one line if it is a mistake."""
    done = subprocess.run([AUTHZ, *arguments], capture_output=True, text=True, check=False, timeout=120)
    output = done.stdout + done.stderr
    if done.returncode != status or (status and output.count("\n") != 1):
        print(output)
        check(f"authz {' '.join(arguments)} exits {status}, not {done.returncode}", holds=False)
    return output


if __name__ == "__main__":
    main()
