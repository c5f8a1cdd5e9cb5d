"""An issuer in memory: real keys and real tokens, and a real verifier of them, without any network."""

import functools
import secrets
from collections.abc import Collection, Mapping
from typing import Any

from authz.call.peer import Peer
from authz.demo.issuer.signing import SigningKey
from authz.issuer.verifier import Verifier
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.testing.claims import AUDIENCE, CLIENT, ISSUER, LIFETIME, claims_of
from authz.testing.guard import check_tested
from authz.token.profiles import ProfileName, TokenProfile, profile_of

_LONG_AGO = -3600.0


class Issuer:
    """An issuer for tests, whose tokens only its own verifiers accept, in this process.

    Every process has a key of its own, which it makes once.

    Args:
        url: ``iss`` of its tokens.
        audience: ``aud`` of its tokens.
        algorithm: what it signs with, such as RS256 or ES256.
        profile: how it writes its tokens: the name of one of :data:`authz.token.profiles.PROFILES`, or one of your
            own.
        clock: tells the time, also to its verifiers.

    Raises:
        ConfigError: there is no profile of that name.

    """

    def __init__(
        self,
        url: str = ISSUER,
        *,
        audience: str = AUDIENCE,
        algorithm: str = "RS256",
        profile: TokenProfile | ProfileName = "workos",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.url = url
        self.audience = audience
        self._profile = profile_of(profile)
        self._clock = clock
        self._keys = [_key_of_process(algorithm)]

    def jwks(self) -> dict[str, Any]:
        """Return the public key set (RFC 7517 section 5)."""
        return {"keys": [key.public_jwk() for key in self._keys]}

    def verifier(self, **options: Any) -> Verifier:
        """Return a verifier that knows the keys of this moment, and fetches none.

        Args:
            options: further arguments of :class:`authz.Verifier`, or others in place of the issuer's own.

        Raises:
            RuntimeError: no test is running.
            ConfigError: an argument that cannot work.

        """
        check_tested("Issuer")
        own = {
            "issuer": self.url,
            "audience": self.audience,
            "jwks": self.jwks(),
            "algorithms": [self._keys[0].algorithm],
            "profile": self._profile,
            "clock": self._clock,
        }
        return Verifier(**{**own, **options})

    def token(
        self,
        org_id: str,
        /,
        *,
        scopes: Collection[str] | str = (),
        client_id: str | None = CLIENT,
        audience: str | None = None,
        issuer: str | None = None,
        expires_in: float = LIFETIME,
        certificate: bytes | None = None,
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed token for an organization.

        Args:
            org_id: the organization.
            scopes: the granted scopes, as a list or as one string.
            client_id: the M2M application; ``None`` for a token that names none.
            audience: ``aud``, if it is not the issuer's.
            issuer: ``iss``, if it is another's.
            expires_in: seconds from now, perhaps negative; then it was issued as much earlier.
            certificate: the client certificate (PEM) that it may be used with alone (RFC 8705 section 3.1).
            header: laid over ``alg`` and ``kid``; ``None`` removes one. The signature does not change.
            claims: laid over the usual claims; ``None`` removes one.

        Raises:
            RuntimeError: no test is running.

        """
        check_tested("Issuer")
        if certificate is not None:
            claims = {"cnf": {"x5t#S256": Peer.known_by_certificate(certificate).certificate}, **claims}
        said = claims_of(
            self._profile,
            org_id,
            self._clock.time(),
            scopes=scopes,
            client_id=client_id,
            issuer=self.url if issuer is None else issuer,
            audience=self.audience if audience is None else audience,
            expires_in=expires_in,
            changes=claims,
        )
        return self._keys[0].sign(said, header)

    def metadata(self, org_id: str, /, **token: Any) -> list[tuple[str, str]]:
        """Return the metadata of a gRPC call with a token; the arguments are those of :meth:`token`."""
        return list(self.headers(org_id, **token).items())

    def headers(self, org_id: str, /, **token: Any) -> dict[str, str]:
        """Return the headers of an HTTP request with a token; the arguments are those of :meth:`token`."""
        return {"authorization": f"Bearer {self.token(org_id, **token)}"}

    def expired(self, org_id: str, /, **token: Any) -> str:
        """Return a token that expired an hour ago: ``token_expired``."""
        return self.token(org_id, **{"expires_in": _LONG_AGO, **token})

    def wrong_audience(self, org_id: str, /, **token: Any) -> str:
        """Return a token for another API: ``claim_invalid``."""
        return self.token(org_id, **{"audience": f"not-{self.audience}", **token})

    def wrong_issuer(self, org_id: str, /, **token: Any) -> str:
        """Return a token that names another issuer: ``claim_invalid``."""
        return self.token(org_id, **{"issuer": "https://another-issuer.test", **token})

    def wrong_signature(self, org_id: str, /, **token: Any) -> str:
        """Return a token with the signature of another one: ``signature_invalid``."""
        signed, _, _ = self.token(org_id, **token).rpartition(".")
        _, _, signature = self.token(org_id, **token).rpartition(".")
        return f"{signed}.{signature}"

    def rotate(self, *, drop: bool = False) -> None:
        """Sign with a new key from now on, which only verifiers know that are made afterwards.

        Args:
            drop: have those not know the old keys; otherwise they know both.

        """
        key = _new_key(self._keys[0].algorithm)
        self._keys = [key] if drop else [key, *self._keys]


def _new_key(algorithm: str) -> SigningKey:
    return SigningKey.generate(f"testing_{secrets.token_hex(8)}", algorithm)


# To make one takes longer than most tests.
_key_of_process = functools.cache(_new_key)
