"""Private keys that sign development tokens, valid and odd ones alike.

Pure: no server and no clock. :meth:`SigningKey.sign` signs whatever it is given, so
that verifiers can be tested with tokens that no honest issuer makes.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jwcrypto.common import base64url_encode
from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from authz.errors import ConfigError
from authz.token.encoding import base64url_decode, json_object

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
_ALGORITHM_OF_CURVE = {curve: name for name, (_, curve) in _CURVES.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SigningKey:
    """A private key with its ``kid`` and its one algorithm."""

    kid: str
    algorithm: str
    _jwk: JWK = field(repr=False)

    @classmethod
    def generate(cls, kid: str, algorithm: str = "RS256", *, rsa_bits: int = 2048) -> Self:
        """Make a new key.

        Args:
            kid: its name in the key set.
            algorithm: RS256/384/512, PS256/384/512, ES256/384/512 or EdDSA (Ed25519).
            rsa_bits: the size of an RSA key; ignored for others.

        """
        if algorithm in _RSA_ALGORITHMS:
            jwk = JWK.generate(kty="RSA", size=rsa_bits, kid=kid, use="sig", alg=algorithm)
        elif algorithm in _CURVES:
            kty, curve = _CURVES[algorithm]
            jwk = JWK.generate(kty=kty, crv=curve, kid=kid, use="sig", alg=algorithm)
        else:
            names = ", ".join((*_RSA_ALGORITHMS, *_CURVES))
            raise ValueError(f"algorithm {algorithm!r} cannot be used; choose from {names}")
        return cls(kid=kid, algorithm=algorithm, _jwk=jwk)

    @classmethod
    def from_jwk(cls, member: Mapping[str, Any]) -> Self:
        """Read a private JWK; without ``alg`` it is for RS256, or for the algorithm of its curve.

        Raises:
            ValueError: it cannot sign; the message says why and quotes no key material.

        """
        kid = member.get("kid")
        if not isinstance(kid, str) or not kid:
            raise ValueError("kid must be a non-empty string")
        algorithm = member.get("alg", _ALGORITHM_OF_CURVE.get(str(member.get("crv")), "RS256"))
        if algorithm not in (*_RSA_ALGORITHMS, *_CURVES):
            raise ValueError("alg is not a signature algorithm with a public key")
        try:
            jwk = JWK(**{**member, "use": "sig", "alg": algorithm})
            # Only a try checks key type, curve and private part together.
            JWA.signing_alg(algorithm).sign(jwk, b"")
        except Exception:  # noqa: BLE001 - jwcrypto and cryptography raise whatever the numbers provoke
            raise ValueError(f"not a private key that can sign {algorithm}") from None
        return cls(kid=kid, algorithm=algorithm, _jwk=jwk)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public half, as a key set publishes it."""
        public: dict[str, Any] = self._jwk.export_public(as_dict=True)
        return public

    def private_jwk(self) -> dict[str, Any]:
        """Return the whole key, which :meth:`from_jwk` reads again."""
        private: dict[str, Any] = self._jwk.export_private(as_dict=True)
        return private

    def sign(self, claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | bytes | None = None) -> str:
        """Return ``claims`` as a compact JWS (RFC 7515 section 3.1), without any checks.

        The signature is always this key's, made with its algorithm, whatever the header claims.

        Args:
            claims: the payload, as JSON members or as raw bytes.
            header: parameters that override ``alg`` and ``kid``, where ``None`` removes one;
                or the raw bytes of the whole header.

        """
        if not isinstance(header, bytes):
            header = _json(overlay({"alg": self.algorithm, "kid": self.kid}, header or {}))
        payload = claims if isinstance(claims, bytes) else _json(claims)
        signing_input = f"{base64url_encode(header)}.{base64url_encode(payload)}"
        signature = JWA.signing_alg(self.algorithm).sign(self._jwk, signing_input.encode("ascii"))
        return f"{signing_input}.{base64url_encode(signature)}"

    def open(self, token: str) -> dict[str, Any]:
        """Return the claims of ``token`` if this key has signed it under its own ``kid`` and algorithm.

        Raises:
            ValueError: anything else.

        """
        signing_input, _, signature = token.rpartition(".")
        head, _, payload = signing_input.partition(".")
        header = json_object(base64url_decode(head))
        if (header.get("alg"), header.get("kid")) != (self.algorithm, self.kid):
            raise ValueError("another key's token")
        verified = base64url_decode(signature)
        try:
            JWA.signing_alg(self.algorithm).verify(self._jwk, signing_input.encode("ascii"), verified)
        except Exception:  # noqa: BLE001 - cryptography and jwcrypto raise six types here, all of which mean no
            raise ValueError("not signed by this key") from None
        return json_object(base64url_decode(payload))


def overlay(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` overridden by ``changes``, where ``None`` removes a member."""
    return {name: value for name, value in {**values, **changes}.items() if value is not None}


def load_keys(path: Path) -> list[SigningKey]:
    """Read a private JWK Set; the first key is the one that signs.

    Raises:
        ConfigError: the file cannot be read, or a key in it cannot sign.

    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON; give a private JWK Set, or name a new file to have one made") from error
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or not members or not all(isinstance(member, dict) for member in members):
        raise ConfigError(f"{path}: keys: must be a list of at least one private JWK")
    keys: dict[str, SigningKey] = {}
    for index, member in enumerate(members):
        try:
            key = SigningKey.from_jwk(member)
        except ValueError as error:
            raise ConfigError(f"{path}: keys[{index}]: {error}") from error
        if key.kid in keys:
            raise ConfigError(f"{path}: keys[{index}].kid: is given twice")
        keys[key.kid] = key
    return list(keys.values())


def save_keys(path: Path, keys: Iterable[SigningKey]) -> None:
    """Write a private JWK Set that :func:`load_keys` reads, readable only by the file's owner.

    Raises:
        ConfigError: the file cannot be written.

    """
    text = json.dumps({"keys": [key.private_jwk() for key in keys]}, indent=2) + "\n"
    # Written beside the target and then renamed, so that a reader finds the old set or the new one, never a part.
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        # Left by a process that was killed; in a container it had the same number.
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def _json(value: Mapping[str, Any]) -> bytes:
    # ASCII with escapes, so that even half a surrogate pair fits into a token.
    return json.dumps(dict(value), separators=(",", ":")).encode("ascii")
