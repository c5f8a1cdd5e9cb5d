"""The peer in Go, built from what Debian packages: no module proxy is asked."""

import os
import subprocess
from pathlib import Path

from benchmarks.missing import MissingError, program
from benchmarks.peers.commands import Peer

ROOT = Path(__file__).parents[2]
NAME = "Go with a cache"
BUILD_SECONDS = 300
_REMEDY = "make ci-partners"
_LIBRARIES = Path("/usr/share/gocode")
_PROTOS = ROOT / "protos/authz/envoy/v3"
# What Debian's libraries call the packages of protobuf's own messages.
_KNOWN = ("any", "struct", "timestamp", "wrappers")


def built(folder: Path) -> Peer:
    """Build the peer.

    Args:
        folder: where its program comes to lie.

    Raises:
        MissingError: Go or its libraries are not installed, or do not build it.

    """
    go, protoc, _ = (program(name, "The peer in Go needs", _REMEDY) for name in ("go", "protoc", "protoc-gen-go"))
    if not (_LIBRARIES / "src/google.golang.org/grpc").exists():
        raise MissingError(f"The peer in Go needs Debian's golang-google-grpc-dev: {_REMEDY}")
    source = folder / "src/example.com/peer"
    (source / "envoy").mkdir(parents=True)
    (source / "main.go").write_bytes(Path(__file__).with_name("go").joinpath("main.go").read_bytes())
    known = ",".join(f"Mgoogle/protobuf/{name}.proto=github.com/golang/protobuf/ptypes/{name}" for name in _KNOWN)
    into = f"--go_out=import_path=envoy,paths=source_relative,{known}:{source / 'envoy'}"
    _run([protoc, f"--proto_path={_PROTOS}", into, "external_auth.proto"], folder)
    _run([go, "build", "-o", str(folder / "peer"), "."], source, GOPATH=f"{folder}:{_LIBRARIES}")
    arguments = "-listen {address} -jwks {jwks} -issuer {issuer} -audience {audience}"
    return Peer(NAME, f"{folder / 'peer'} {arguments}")


def _run(command: list[str], folder: Path, **variables: str) -> None:
    ours = {"GO111MODULE": "off", "GOFLAGS": "", "GOCACHE": str(ROOT / ".cache/go"), **variables}
    try:
        subprocess.run(  # noqa: S603 - what was found above
            command, cwd=folder, env={**os.environ, **ours}, check=True, capture_output=True, timeout=BUILD_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(f"The peer in Go was not built here: {type(error).__name__}; {_REMEDY}") from error
