"""JSON Web Keys (RFC 7517): which of an issuer's keys may verify which signatures.

Pure: turns a parsed JWK Set into the keys that are fit to verify a signature,
and leaves out every other key, with the reason.
"""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from jwcrypto.jwk import JWK

from authz.errors import ConfigError, KeyNotFoundError
from authz.token.encoding import base64url_decode
from authz.token.signature import Check, signature_check

MAX_KEYS = 64
# The most keys left out that are named: as many as fit in a line of a log.
_MOST_TOLD = 5

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192
_MIN_EXPONENT, _MAX_EXPONENT = 65537, 2**32

_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

# Curve -> its one algorithm, bytes of a coordinate, bytes of a signature
# (RFC 7518 section 3.4, RFC 8037 section 3.1).
_CURVES = {
    ("EC", "P-256"): ("ES256", 32, 64),
    ("EC", "P-384"): ("ES384", 48, 96),
    ("EC", "P-521"): ("ES512", 66, 132),
    ("OKP", "Ed25519"): ("EdDSA", 32, 64),
}

# Without "none" and HS*; an algorithm that is not here cannot be configured.
SUPPORTED_ALGORITHMS = frozenset(_RSA_ALGORITHMS) | {row[0] for row in _CURVES.values()}

# RFC 9864 section 2.2 gives EdDSA with Ed25519, the one curve supported here, a name of its own.
_OTHER_NAMES = {"Ed25519": "EdDSA"}

_KID = re.compile(r"[\x20-\x7e]{1,128}", re.ASCII)

PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))

# Keys of the Infineon library (CVE-2017-15361) are powers of 65537 modulo every one of these.
_ROCA_PRIMES = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89),
    *(97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167),
)
_ROCA_RESIDUES = {prime: {pow(65537, power, prime) for power in range(prime)} for prime in _ROCA_PRIMES}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key that passed every check, and what it may verify.

    Two are equal if they are the same key for the same use: then what one has verified is good for the other.
    """

    kid: str | None
    algorithms: frozenset[str]
    signature_size: int
    thumbprint: str
    _checks: Mapping[str, Check] = field(compare=False, repr=False)

    def verify(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Say whether ``signature`` is this key's, made with ``algorithm``, which must be one of ``algorithms``."""
        # The length must be exact: else a signature that is zero-extended or split differently would pass too.
        if algorithm not in self.algorithms or len(signature) != self.signature_size:
            return False
        try:
            self._checks[algorithm](signature, signing_input)
        except Exception:  # noqa: BLE001 - whatever is raised, the signature is not verified
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The fit keys of one JWK Set, and why the others are not.

    Args:
        keys: by ``kid``, the keys of that name, all for different algorithms.
        dropped: for each key left out, its ``kid`` (or ``None``) and the reason.

    """

    keys: Mapping[str | None, tuple[VerificationKey, ...]]
    dropped: tuple[tuple[str | None, str], ...] = ()

    def __len__(self) -> int:
        """Return how many keys there are."""
        return sum(map(len, self.keys.values()))

    def get(self, kid: str | None, algorithm: str | None = None) -> VerificationKey | None:
        """Return the key of that ``kid`` for that algorithm, if there is exactly one.

        Args:
            kid: its name; ``None`` for the only key of the set, whatever its name.
            algorithm: what the token was signed with; ``None`` for any.

        """
        named = self.keys.get(kid, ()) if kid is not None else itertools.chain.from_iterable(self.keys.values())
        found = None
        for key in named:
            if algorithm is None or algorithm in key.algorithms:
                if found is not None:
                    return None
                found = key
        return found

    def knows(self, kid: str | None, thumbprint: str = "") -> bool:
        """Say whether there is a key of that ``kid``; with a thumbprint, whether that very key is there."""
        for key in self.keys.get(kid, ()):  # noqa: SIM110 - any() would make a generator for every call
            if thumbprint in ("", key.thumbprint):
                return True
        return False

    def missing(self, kid: str | None) -> KeyNotFoundError:
        """Return why :meth:`get` has found no key of that ``kid``."""
        return KeyNotFoundError("the keys of this kid are for other algorithms" if kid in self.keys else "")

    def why_dropped(self) -> str:
        """Return in one line which keys were left out, and why; if there are many, the first few."""
        told = [f"key {kid!a}: {reason}" for kid, reason in self.dropped[:_MOST_TOLD]]
        more = len(self.dropped) - len(told)
        return "; ".join([*told, f"and {more} more"] if more else told) or "it is empty"

    def keeping(self, before: "KeyRing") -> "KeyRing":
        """Return these keys, with the objects of ``before`` for the keys that were there already."""
        kept = {
            kid: tuple(next((old for old in before.keys.get(kid, ()) if old == key), key) for key in keys)
            for kid, keys in self.keys.items()
        }
        return KeyRing(keys=kept, dropped=self.dropped)

    def covers(self, key: VerificationKey) -> bool:
        """Say whether these keys verify all that ``key`` verifies."""
        now = self.keys.get(key.kid, ())
        return any(key.thumbprint == other.thumbprint and key.algorithms <= other.algorithms for other in now)

    def holds(self, key: VerificationKey) -> bool:
        """Say whether this very ``key`` is one of them."""
        for held in self.keys.get(key.kid, ()):  # noqa: SIM110 - any() would make a generator for every call
            if held is key:
                return True
        return False


def algorithm_name(name: str) -> str:
    """Return this package's one name of an algorithm: that of ``Ed25519`` is ``EdDSA`` (RFC 9864)."""
    return _OTHER_NAMES.get(name, name)


def check_algorithms(algorithms: Collection[str]) -> frozenset[str]:
    """Return ``algorithms`` as a set.

    Raises:
        ConfigError: there is none, or one is not an asymmetric signature algorithm of this module.

    """
    names = set(map(algorithm_name, (algorithms,) if isinstance(algorithms, str) else algorithms))
    wrong = sorted(map(str, names - SUPPORTED_ALGORITHMS))
    if wrong or not names:
        raise ConfigError(
            f"algorithms: {', '.join(wrong) or 'none given'} cannot be used;"
            f" choose from {', '.join(sorted(SUPPORTED_ALGORITHMS))}"
        )
    return frozenset(names)


def is_kid(kid: str) -> bool:
    """Say whether this package accepts ``kid``: 1 to 128 printable ASCII characters."""
    return _KID.fullmatch(kid) is not None


def parse_jwks(document: Mapping[str, Any]) -> KeyRing:
    """Read a JWK Set (RFC 7517 section 5); one bad key does not spoil the others.

    Raises:
        ValueError: there is no array ``keys``, or it holds more than 64.

    """
    members = document.get("keys")
    if not isinstance(members, list):
        raise ValueError("a JWK Set needs an array 'keys'")  # noqa: TRY004 - one type for whatever is wrong
    if len(members) > MAX_KEYS:
        raise ValueError(f"a JWK Set of more than {MAX_KEYS} keys")
    fit: dict[str | None, dict[str, list[VerificationKey]]] = {}
    dropped: list[tuple[str | None, str]] = []
    for member in members:
        try:
            key = parse_jwk(member)
        except ValueError as error:
            dropped.append((_printable_kid(member), str(error)))
        else:
            fit.setdefault(key.kid, {}).setdefault(key.thumbprint, []).append(key)
    keys = {}
    for kid, listed in fit.items():
        merged = [_merged(twins) for twins in listed.values()]
        distinct = _distinct(merged)
        if distinct != merged:
            dropped.append((kid, "two different keys of one kid"))
        if distinct:
            keys[kid] = tuple(distinct)
    return KeyRing(keys=keys, dropped=tuple(dropped))


def _merged(twins: list[VerificationKey]) -> VerificationKey:
    """Return one key that is listed several times under one ``kid``, for each algorithm that a listing names."""
    # RFC 8725 section 3.1: a listing without alg adds nothing to one that says what the key is for.
    listings = [key for key in twins if len(key.algorithms) == 1] or twins
    return replace(listings[0], algorithms=frozenset().union(*(key.algorithms for key in listings)))


def _distinct(keys: Collection[VerificationKey]) -> list[VerificationKey]:
    """Return the keys of one ``kid``, each without the algorithms that two of them share: no token could choose."""
    counts = Counter(itertools.chain.from_iterable(key.algorithms for key in keys))
    single = {name for name, count in counts.items() if count == 1}
    return [replace(key, algorithms=key.algorithms & single) for key in keys if key.algorithms & single]


def parse_jwk(member: object) -> VerificationKey:
    """Read one JWK; members that are ``null`` count as absent.

    Raises:
        ValueError: the key is not fit to verify; the message says why and quotes nothing of it.

    """
    if not isinstance(member, dict):
        _unfit("not an object")
    member = {name: value for name, value in member.items() if value is not None}
    if not PRIVATE_MEMBERS.isdisjoint(member) or member.get("kty") == "oct":
        _unfit("a secret or private key in a public place")
    kid = _printable_kid(member)
    if kid is None and "kid" in member:
        _unfit("kid is not a short printable string")
    _check_use(member)
    if member.get("kty") == "RSA":
        fitting, signature_size, material = _rsa(member)
    else:
        fitting, signature_size, material = _curve(member)
    algorithms = fitting
    if "alg" in member:
        # RFC 8725 section 3.1: one key, one algorithm.
        said = member["alg"]
        algorithms = fitting & {algorithm_name(said)} if isinstance(said, str) else frozenset()
        if not algorithms:
            _unfit("alg is not one that fits this key")
    try:
        jwk = JWK(kty=member["kty"], **material)
        # Builds the key object now, so that a point that is not on the curve fails here.
        public_key = jwk.get_op_key("verify")
    except Exception:  # noqa: BLE001 - jwcrypto and cryptography raise whatever the numbers provoke
        _unfit("not a valid key")
    return VerificationKey(
        kid=kid,
        algorithms=algorithms,
        signature_size=signature_size,
        thumbprint=jwk.thumbprint(),
        _checks={name: signature_check(name, public_key) for name in fitting},
    )


def _check_use(member: Mapping[str, Any]) -> None:
    # RFC 7517 sections 4.2 and 4.3: both are optional, and must agree if both are there.
    if member.get("use", "sig") != "sig":
        _unfit("use is not sig")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        _unfit("key_ops does not name verify")
    if any(operation not in ("sign", "verify") for operation in operations):
        # Section 4.3: a key without a use must not be for unrelated operations.
        _unfit("use and key_ops disagree" if "use" in member else "key_ops names more than signatures")


def _rsa(member: Mapping[str, Any]) -> tuple[frozenset[str], int, dict[str, str]]:
    modulus = int.from_bytes(_octets(member, "n"))
    exponent = int.from_bytes(_octets(member, "e"))
    if not _MIN_RSA_BITS <= modulus.bit_length() <= _MAX_RSA_BITS:
        _unfit("an RSA key must have 2048 to 8192 bits")
    if not modulus % 2:
        _unfit("an RSA modulus must be odd")
    if not (_MIN_EXPONENT <= exponent < _MAX_EXPONENT and exponent % 2):
        _unfit("an RSA exponent must be odd, at least 65537 and below 2^32")
    if all(modulus % prime in residues for prime, residues in _ROCA_RESIDUES.items()):
        _unfit("an RSA key from a generator known to be weak")
    material = {"n": member["n"], "e": member["e"]}
    return frozenset(_RSA_ALGORITHMS), (modulus.bit_length() + 7) // 8, material


def _curve(member: Mapping[str, Any]) -> tuple[frozenset[str], int, dict[str, str]]:
    kty, crv = member.get("kty"), member.get("crv")
    if not isinstance(kty, str) or not isinstance(crv, str) or (kty, crv) not in _CURVES:
        _unfit("a key type or curve that is not supported")
    algorithm, coordinate_size, signature_size = _CURVES[kty, crv]
    material = {"crv": crv}
    for name in ("x", "y") if kty == "EC" else ("x",):
        if len(_octets(member, name)) != coordinate_size:
            _unfit("a coordinate of the wrong length")
        material[name] = member[name]
    return frozenset((algorithm,)), signature_size, material


def _octets(member: Mapping[str, Any], name: str) -> bytes:
    value = member.get(name)
    if not isinstance(value, str):
        _unfit(f"{name} is missing or not a string")
    return base64url_decode(value)


def _printable_kid(member: object) -> str | None:
    kid = member.get("kid") if isinstance(member, dict) else None
    return kid if isinstance(kid, str) and is_kid(kid) else None


def _unfit(why: str) -> NoReturn:
    raise ValueError(why)
