"""A local WorkOS for development: tokens, keys, introspection and organizations, on one loopback port.

Never use it in production: its secrets are in a file, and anybody who can
reach it can make it sign any token. Therefore it binds only loopback
addresses, unless told otherwise.

In addition to WorkOS's endpoints it has controls for development:

``POST /dev/rotate``
    signs with a new key from now on. The old keys stay in the key set; the
    form parameter ``drop=true`` removes them.
``POST /dev/revoke``
    takes a form with one of ``token``, ``jti`` or ``client_id``. Introspection
    says that a revoked token is inactive; a revoked application gets
    ``invalid_client`` until the issuer is started again.
``POST /dev/tokens``
    signs any token with the real key. It takes a JSON object with
    ``client_id``, and optionally ``claims`` and ``header``, which override
    the usual ones (``null`` removes one), and ``expires_in`` in seconds,
    negative for an expired token.

:class:`IssuerServer` runs it in a thread, :func:`serve_issuer` as a program.
"""

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from authz.demo.issuer.directory import load_directory
from authz.demo.issuer.http import app
from authz.demo.issuer.server import IssuerServer
from authz.demo.issuer.signing import SigningKey, load_keys, save_keys
from authz.demo.issuer.tokens import TOKEN_LIFETIME, Issuer, OAuthCode, OAuthError
from authz.runtime.text.printable import printable

__all__ = [
    "TOKEN_LIFETIME",
    "Issuer",
    "IssuerServer",
    "OAuthCode",
    "OAuthError",
    "SigningKey",
    "app",
    "serve_issuer",
]


def serve_issuer(
    *,
    listen: str = "127.0.0.1:9190",
    issuer_url: str | None = None,
    config: Path | str | None = None,
    keys: Path | str | None = None,
    allow_remote: bool = False,
    webhooks: str | None = None,
    announce: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run the issuer until SIGINT or SIGTERM; call it on the main thread.

    Args:
        listen: ``HOST:PORT``; port 0 chooses a free one.
        issuer_url: the issuer that tokens name, if it differs from the address.
        config: YAML file of organizations and applications; the built-in one by default.
        keys: private JWK Set to sign with; created if it does not exist, and updated by rotation.
        allow_remote: permit an address that other machines can reach.
        webhooks: the URL to which what happens to organizations is posted, signed as WorkOS does it.
        announce: called with the bound URL once the server answers requests.

    Raises:
        ConfigError: a setting is wrong; one line names it and the remedy.

    """
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        issuer = _configured(issuer_url, config, keys)
        server = IssuerServer(issuer, listen=listen, allow_remote=allow_remote, webhooks=webhooks)
        stack.enter_context(server)
        sys.stderr.write(_banner(server, webhooks))
        sys.stderr.flush()
        announce(server.address)
        stop.wait()


def _configured(issuer_url: str | None, config: Path | str | None, keys: Path | str | None) -> Issuer:
    directory = load_directory(Path(config) if config else None)
    if not keys:
        return Issuer(issuer_url, directory=directory)
    path = Path(keys)
    known = load_keys(path) if path.exists() else ()
    issuer = Issuer(issuer_url, directory=directory, keys=known, on_rotate=lambda rotated: save_keys(path, rotated))
    if not known:
        save_keys(path, issuer.keys)
    return issuer


def _banner(server: IssuerServer, webhooks: str | None) -> str:
    lines = [f"development issuer listening on {server.address} (never use it in production)"]
    if server.url != server.address:
        lines.append(f"  issuer    {server.url}")
    lines.append(f"  audience  {server.issuer.directory.audience}")
    lines.append(f"  API key   {server.issuer.directory.api_key}")
    if webhooks is not None:
        lines.append(f"  webhooks  {webhooks}  {server.issuer.directory.webhook_secret}")
    for organization in server.issuer.directory.organizations:
        lines.append(f"  {organization.name}  {organization.id}")
        lines += (
            f"    {application.name}  {application.client_id}  {application.client_secret}"
            for application in organization.applications
        )
    for application in server.issuer.directory.applications:
        if application.type == "m2m":
            secret = shlex.quote(f"client_secret={application.client_secret}")
            lines.append(
                f"curl {server.address}/oauth2/token -d grant_type=client_credentials"
                f" -d client_id={application.client_id} --data-urlencode {secret}"
            )
            break
    return "".join(f"{printable(line)}\n" for line in lines)


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda _number, _frame: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
