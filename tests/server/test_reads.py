"""How often a server reads and links its descriptor set: that takes long for a large one."""

import asyncio
import gc
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from authz.demo.issuer.signing import SigningKey
from authz.policy.protos import descriptors as room
from authz.server import server_process
from authz.settings.settings import Settings
from tests.doubles import AUDIENCE, ISSUER, jwks
from tests.marked import service_file, with_imports
from tests.server.serving.serving import LOOPBACK, PATIENCE

POLICY = {"name": "ledger", "allow_rules": [{"name": "all"}], "override": True}


def api(*scopes: str) -> bytes:
    return with_imports(service_file({"Call": {"scopes": scopes}}))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each reading of a descriptor set."""
    reads: list[str] = []
    link = room.linked

    def linked(files: Any, source: str) -> Any:
        reads.append(source)
        return link(files, source)

    monkeypatch.setattr(room, "linked", linked)
    return reads


async def until(caplog: pytest.LogCaptureFixture, event: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not any(message.startswith(event) for message in caplog.messages):  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("shadow", [False, True])
def test_start_and_each_reload_read_it_once(
    tmp_path: Path, ec_key: SigningKey, caplog: pytest.LogCaptureFixture, reads: list[str], *, shadow: bool
) -> None:
    path = tmp_path / "api.binpb"
    path.write_bytes(api("a"))
    (tmp_path / "jwks.json").write_text(json.dumps(jwks(ec_key)))
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    files = {"policy": "policy.json", **({"shadow": "policy.json"} if shadow else {}), "descriptors": "api.binpb"}
    settings = Settings.load(
        issuer=ISSUER,
        audience=AUDIENCE,
        jwks=str(tmp_path / "jwks.json"),
        listen=[LOOPBACK],
        **{name: str(tmp_path / file) for name, file in files.items()},
    )

    async def story() -> tuple[int, int]:
        running = asyncio.create_task(server_process.run(settings))
        await until(caplog, "listening")
        at_start = len(reads)
        # In one step, or a file that is half written might be read as well.
        new = path.with_suffix(".new")
        new.write_bytes(api("b"))
        new.replace(path)
        for what in ("policy", *(("shadow",) if shadow else ())):
            await until(caplog, f"{what}_reloaded")
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(running, PATIENCE)
        return at_start, len(reads)

    with caplog.at_level("INFO", "authz"):
        told = asyncio.run(story())
    # The server has told the collector to leave alone what there was.
    gc.unfreeze()

    assert told == (1, 1 + sum("_reloaded" in message for message in caplog.messages))
