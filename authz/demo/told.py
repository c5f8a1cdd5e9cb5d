"""The scene of the demonstration in which WorkOS tells what has happened there."""

import time
from collections.abc import Iterator

import grpc
import httpx2

from authz.demo.fleet import Fleet, everywhere, wait_until
from authz.demo.issuer.directory import Application
from authz.demo.partner import Metadata, Stream, authorized, request_http
from authz.demo.scenes import Expected, Row, Scenes, seen

_TIMEOUT_SECONDS = 60.0
_GONE = Expected(status="UNAUTHENTICATED", reason="TOKEN_INACTIVE")


def told(stack: Fleet, scenes: Scenes) -> Iterator[Row]:
    """Delete an organization at the issuer, which says so by a webhook; one server asks it, and tells all others.

    Args:
        stack: the running processes: two authorization servers and the backend, which share a store.
        scenes: gives tokens.

    """
    globex = stack.directory.applications[1]
    metadata = authorized(scenes.token(globex))
    # The issuer and the store were both away, and the quota of the last scene has just gone.
    wait_until(lambda: stack.is_workos_followed() and _is_everywhere(stack, metadata, seen(globex)))
    with grpc.insecure_channel(stack.target) as channel, Stream(channel, metadata) as stream:
        yield Row(sent="Globex opens a stream", expected=seen(globex), through_envoy=(stream.post(),))
        seconds = _delete(stack, globex, metadata)
        yield everywhere(stack, f"Globex is deleted at WorkOS: {seconds:.1f} s later", metadata, _GONE)
        yield Row(sent="the stream that Globex holds open", expected=_GONE, through_envoy=(stream.wait(),))


def _delete(stack: Fleet, application: Application, metadata: Metadata) -> float:
    """Delete the application's organization, and return after how many seconds every server refuses it."""
    response = httpx2.delete(
        f"{stack.issuer_url}/organizations/{application.org_id}",
        headers={"authorization": f"Bearer {stack.directory.api_key}"},
        timeout=_TIMEOUT_SECONDS,
        trust_env=False,
    )
    response.raise_for_status()
    began = time.monotonic()
    wait_until(lambda: _is_everywhere(stack, metadata, _GONE))
    return time.monotonic() - began


def _is_everywhere(stack: Fleet, metadata: Metadata, expected: Expected) -> bool:
    addresses = stack.target, stack.cold_target, f"{stack.backend['http']}/guarded"
    return all(expected.matches(request_http(f"http://{address}", metadata)) for address in addresses)
