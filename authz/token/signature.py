"""The signature algorithms of JWS (RFC 7518 section 3, RFC 8037), by ``cryptography``.

Pure. jwcrypto reads the keys, but does not verify: its ``verify`` adds 25 µs to the signature check of an ES256 token.
"""

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

Check = Callable[[bytes, bytes], None]

_HASHES = {"256": SHA256(), "384": SHA384(), "512": SHA512()}


def signature_check(algorithm: str, public_key: Any) -> Check:
    """Return a function of signature and signing input that raises unless the signature is the key's.

    Args:
        algorithm: one of :data:`authz.token.jwk.SUPPORTED_ALGORITHMS`.
        public_key: a key of ``cryptography`` that fits it.

    """
    verify: Callable[..., None] = public_key.verify
    if algorithm == "EdDSA":
        return verify
    family, digest = algorithm[:2], _HASHES[algorithm[2:]]
    if family == "ES":
        scheme = ECDSA(digest)
        return lambda signature, data: verify(_der(signature), data, scheme)
    # RFC 7518 section 3.5: the salt is as long as the digest.
    padding = PKCS1v15() if family == "RS" else PSS(MGF1(digest), digest.digest_size)
    return lambda signature, data: verify(signature, data, padding, digest)


def _der(signature: bytes) -> bytes:
    # RFC 7518 section 3.4: r and s, each as long as the curve's order.
    half = len(signature) // 2
    return encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
