"""The judge behind every door: says whether a call may be made, and who makes it."""

import re
import string
from collections.abc import Collection, Iterable, Mapping

from authz import telemetry
from authz.call import ANONYMOUS, Call, Principal
from authz.errors import AuthzError, ConfigError, InternalError, TokenMalformedError, TokenMissingError
from authz.flow import Flow
from authz.introspection import Assurance, Introspector
from authz.jws import MAX_TOKEN_LENGTH
from authz.metadata import TrustedMetadata
from authz.refusal import Refusal, check_realm, refusal_of
from authz.revocation import Revocations
from authz.verifier import Verifier
from authz.verifiers import Verifiers

# Those of a compact JWS. No comma: two headers joined into one, as Envoy does, are no token.
_TOKEN_CHARACTERS = f"{string.ascii_letters}{string.digits}_.-".encode()
_MAX_CREDENTIALS = len("Bearer ") + MAX_TOKEN_LENGTH

_METHOD = re.compile(r"/[^\s?#]+")


class Authorizer:
    """Decide calls.

    Args:
        verifier: says which tokens are good; :class:`authz.Verifiers` for several issuers.
        public_methods: full names, such as ``/grpc.health.v1.Health/Check``, that anybody may call.
            They match exactly; everything else needs a token.
        introspector: asks the issuer whether tokens have been withdrawn; for several issuers one for each,
            by issuer, so that a token is shown to nobody but the issuer that it is from.
        assurance: how sure every method must be of that; or by full method name, where ``*`` names all others;
            a method without one believes the signature until the token expires.
        realm: what ``www-authenticate`` calls this API (RFC 9110 section 11.5).
        trusted: under which names backends find the caller.

    Raises:
        ConfigError: an argument that cannot work; the message names it.

    """

    def __init__(
        self,
        verifier: Verifier | Verifiers,
        *,
        public_methods: Collection[str] = (),
        introspector: Introspector | Mapping[str, Introspector] | None = None,
        assurance: Assurance | Mapping[str, Assurance] | None = None,
        realm: str = "api",
        trusted: TrustedMetadata | None = None,
    ) -> None:
        if (assurance is None) != (introspector is None):
            raise ConfigError("introspector and assurance: give both or neither, or nothing would ever be asked")
        self.verifier = verifier
        self.trusted = trusted or TrustedMetadata()
        self.revocations = Revocations()
        self._public = _methods(public_methods, "public_methods")
        self._introspectors = _by_issuer(introspector, verifier.health()) if introspector is not None else {}
        self._assurance = {"*": assurance} if isinstance(assurance, Assurance) else dict(assurance or {})
        self._default_assurance = self._assurance.pop("*", None)
        _methods(self._assurance, "assurance")
        self._realm = check_realm(realm)

    def authorize(self, call: Call) -> Flow[Principal]:
        """Return who makes ``call`` if it may be made; ``ANONYMOUS`` on a public method.

        Raises:
            AuthzError: it may not, or nobody can say.

        """
        if call.method in self._public:
            return ANONYMOUS
        token = bearer_token(call.metadata)
        principal = yield from self.verifier.verify_flow(token)
        self.revocations.check(principal)
        if self._introspectors:
            assurance = self._assurance.get(call.method, self._default_assurance)
            if assurance is not None:
                yield from self._introspectors[principal.issuer].introspect(token, principal, assurance)
        return principal

    def close(self) -> None:
        """Stop every request to an issuer."""
        self.verifier.close()
        for introspector in self._introspectors.values():
            introspector.close()

    def refusal(self, call: Call, error: BaseException) -> Refusal:
        """Log why ``call`` is refused and return what its caller sees; the unforeseen is an INTERNAL error."""
        if not isinstance(error, AuthzError):
            telemetry.unforeseen("authorize", error)
            error = InternalError()
        telemetry.event(telemetry.INFO, "call_refused", method=call.method, code=error.code.name, reason=error.reason)
        return refusal_of(error, self._realm)


def as_authorizer(judge: Authorizer | Verifier | Verifiers, public_methods: Collection[str] = ()) -> Authorizer:
    """Return ``judge`` as an authorizer; a verifier alone becomes one that admits every good token.

    Raises:
        ConfigError: neither of the two, or ``public_methods`` beside an authorizer, which has its own.

    """
    if isinstance(judge, Verifier | Verifiers):
        return Authorizer(judge, public_methods=public_methods)
    if not isinstance(judge, Authorizer):
        raise ConfigError(f"a Verifier or an Authorizer is needed, not {type(judge).__name__}")
    if public_methods:
        raise ConfigError("public_methods: give them to the Authorizer")
    return judge


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the one bearer token of a call (RFC 6750 section 2.1).

    Raises:
        TokenMissingError: there is no ``authorization``.
        TokenMalformedError: there are several, or the one is not ``Bearer`` and a token.

    """
    values = [value for key, value in metadata if key == "authorization"]
    if not values:
        raise TokenMissingError
    value = values[0]
    if len(values) > 1 or len(value) > _MAX_CREDENTIALS or not isinstance(value, str):
        raise TokenMalformedError("more than one authorization, or one that is too long")
    # RFC 9110 section 11.1: the scheme in any case; RFC 6750 section 2.1: exactly one space.
    scheme, _, token = value.partition(" ")
    foreign = token.encode(errors="replace").translate(None, _TOKEN_CHARACTERS)
    if scheme.lower() != "bearer" or not token or foreign:
        raise TokenMalformedError("authorization is not a scheme Bearer, one space and a token")
    return token


def _by_issuer(
    introspector: Introspector | Mapping[str, Introspector], issuers: Collection[str]
) -> dict[str, Introspector]:
    if isinstance(introspector, Mapping):
        introspectors = dict(introspector)
    else:
        introspectors = dict.fromkeys(list(issuers)[:1], introspector)
    if introspectors.keys() != set(issuers):
        raise ConfigError("introspector: with several issuers give one for each, as a mapping by issuer")
    return introspectors


def _methods(names: Collection[str], setting: str) -> frozenset[str]:
    if isinstance(names, str):
        names = (names,)
    for name in names:
        if not _METHOD.fullmatch(name):
            raise ConfigError(f"{setting}: {name!a} is not a full method name such as /grpc.health.v1.Health/Check")
    return frozenset(names)
