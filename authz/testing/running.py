"""The development issuer on a port of this machine, for programs that fetch keys and tokens themselves."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz.runtime.configuration import extra
from authz.testing.guard import check_tested

with extra("server", "authz.testing.running_issuer needs the extra 'server'"):
    from authz.demo.issuer.directory import Application, load_directory
    from authz.demo.issuer.server import IssuerServer
    from authz.demo.issuer.tokens import TOKEN_LIFETIME, Issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningIssuer:
    """What a program must know of the issuer that is running.

    Args:
        url: where it is, and ``iss`` of its tokens.
        audience: ``aud`` of its tokens.
        org_id: the organization of the first application.
        client_id: the id of that application.
        client_secret: its secret.
        applications: all of them, with their organizations and scopes.

    """

    url: str
    audience: str
    org_id: str
    client_id: str
    client_secret: str = field(repr=False)
    applications: tuple[Application, ...] = field(repr=False)
    _issuer: Issuer = field(repr=False)

    @property
    def token_endpoint(self) -> str:
        """Where an application gets a token (RFC 6749 section 4.4)."""
        return f"{self.url}/oauth2/token"

    @property
    def jwks_url(self) -> str:
        """Where the public keys are."""
        return f"{self.url}/oauth2/jwks"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which ``authz serve`` and ``Verifier.from_env()`` accept its tokens."""
        return {"AUTHZ_ISSUER": self.url, "AUTHZ_AUDIENCE": self.audience}

    def token(self, client_id: str | None = None, *, expires_in: float = TOKEN_LIFETIME, **claims: Any) -> str:
        """Return a token of an application, without asking for its secret.

        Args:
            client_id: the application; by default the first one.
            expires_in: seconds from now, perhaps negative.
            claims: laid over the usual claims; ``None`` removes one.

        Raises:
            LookupError: there is no such application.

        """
        return self._issuer.mint(client_id or self.client_id, claims=claims, expires_in=expires_in)


@contextlib.contextmanager
def running_issuer(config: Path | str | None = None, *, listen: str = "127.0.0.1:0") -> Iterator[RunningIssuer]:
    """Run the development issuer, as ``authz issuer`` does, in a thread of this process.

    Args:
        config: YAML file of organizations and applications, as ``authz issuer --print-config`` prints it; by default
            that one.
        listen: ``HOST:PORT`` on this machine; port 0 chooses a free one.

    Raises:
        RuntimeError: no test is running.
        ConfigError: the file or the address cannot be used.

    """
    check_tested("running_issuer")
    issuer = Issuer(directory=load_directory(None if config is None else Path(config)))
    first = issuer.directory.applications[0]
    with IssuerServer(issuer, listen=listen) as server:
        yield RunningIssuer(
            url=server.url,
            audience=issuer.directory.audience,
            org_id=first.org_id,
            client_id=first.client_id,
            client_secret=first.client_secret,
            applications=issuer.directory.applications,
            _issuer=issuer,
        )
