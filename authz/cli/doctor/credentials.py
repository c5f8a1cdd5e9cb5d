"""A token of a caller, as the verifier sees it; and our own credentials for asking about tokens."""

from collections.abc import Iterator

from authz.cli.app import secret_in
from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.issuer import NO_ISSUER
from authz.cli.doctor.reaching import in_words
from authz.cli.doctor.subject import GENERAL, Issuer, Subject
from authz.errors import (
    AuthzError,
    ClaimError,
    ConfigError,
    TokenDeniedError,
    TokenEndpointError,
    TokenExpiredError,
    UnavailableError,
)
from authz.issuer.discovery import issuer_endpoint
from authz.issuer.endpoint import authenticated
from authz.issuer.explanation import explain, unverified
from authz.issuer.token_source import ClientCredentials
from authz.issuer.verifiers import verifier_of
from authz.runtime.clock import SYSTEM_CLOCK
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse, Transport, TransportError
from authz.settings import variables
from authz.token.encoding import EncodingError, json_object

_OK, _BAD_REQUEST, _UNAUTHORIZED = 200, 400, 401
# Not a token of any issuer: an issuer that knows us says that it is not active (RFC 7662 section 2.2).
_MADE_UP = "authz-doctor-asks-about-no-token"


def check_token(subject: Subject) -> Iterator[Finding]:
    """Verify the token that was given, or one that the credentials get."""
    evidence = subject.evidence
    if evidence.token_file is not None:
        try:
            subject.token = secret_in(evidence.token_file, "token_file")
        except ConfigError as error:
            yield subject.wrong(GENERAL, error)
            return
    else:
        finding = _get_token(subject)
        if not subject.token:
            yield finding
            return
    subject.hide(subject.token)
    yield _verified(subject)


def _get_token(subject: Subject) -> Finding:
    try:
        source = _source(subject)
    except ConfigError as error:
        return subject.wrong(GENERAL, error)
    if source is None:
        return skipped("neither --client-id (AUTHZ_CLIENT_ID) nor --token-file is given")
    try:
        subject.token = source.token()
    except TokenDeniedError as error:
        return fault("token-refused", str(error), "a token")
    except TokenEndpointError as error:
        return fault("token-unavailable", str(error), "a token")
    finally:
        source.close()
    return ok("got a token")


def _source(subject: Subject) -> ClientCredentials | None:
    """Return what gets a token, as ``authz token`` does; ``None`` where no application is named.

    Raises:
        ConfigError: something about it is missing or cannot work.

    """
    evidence, settings = subject.evidence, subject.settings
    found = variables.values(variables.CLIENT, settings.env_file)
    client_id = evidence.client_id or found.get("client_id")
    if client_id is None:
        return None
    url, file = found.get("token_url"), evidence.client_secret_file or found.get("client_secret_file")
    secret = secret_in(file, "client_secret_file") if file is not None else found.get("client_secret", "")
    subject.hide(secret)
    subject.hide_parts(url or "")
    if not secret:
        raise ConfigError("client_secret: missing; set AUTHZ_CLIENT_SECRET or --client-secret-file")
    if url is None and len(subject.issuers) != 1:
        raise ConfigError("token_url: missing; with no issuer or several, set AUTHZ_TOKEN_URL")
    about = subject.issuers[0].settings if url is None else None
    return ClientCredentials(
        None if about is None else about.issuer,
        token_url=url,
        discover=about is not None and about.discover,
        discover_hosts=() if about is None else about.discover_hosts or (),
        client_id=client_id,
        client_secret=secret,
        scope=found.get("scope"),
        resource=found.get("token_resource", "").split() or None,
        audience=found.get("token_audience"),
        auth_method=evidence.client_auth_method,
        # One of its own, because it is closed with the source.
        transport=_transport(subject),
    )


def _transport(subject: Subject) -> Transport:
    settings = subject.settings
    return Transport(timeout=subject.evidence.timeout, ca_file=settings.ca_file, trust_env=settings.proxy_from_env)


def _verified(subject: Subject) -> Finding:
    try:
        verifier = verifier_of(subject.settings)
    except ConfigError as error:
        return subject.wrong(GENERAL, error)
    try:
        if not any(each.has_keys for each in subject.issuers):
            return fault("token-undecided", "no key of the issuer is there to verify it with")
        principal = verifier.verify(subject.token)
    except UnavailableError as error:
        return fault("token-undecided", str(error))
    except AuthzError as error:
        explanation = explain(error, subject.token, verifier)
        found, expected, _ = explanation or (str(error), "a good token", ())
        return fault(_code_of(error, subject), found, expected)
    finally:
        verifier.close()
    return ok(f"verified: organization {principal.org_id}, client {principal.client_id}")


def _code_of(error: AuthzError, subject: Subject) -> str:
    if isinstance(error, TokenExpiredError):
        return "token-expired"
    if not isinstance(error, ClaimError):
        return "token-invalid"
    claims = unverified(subject.token).claims or {}
    organization = {"org_id", *(each.settings.org_id_claim or "org_id" for each in subject.issuers)}
    codes = {"aud": "token-wrong-audience", "iss": "token-wrong-issuer"}
    if error.claim in organization and "iss" in claims:
        return "token-no-organization"
    return codes.get(error.claim, "token-invalid")


def check_introspection(subject: Subject) -> Iterator[Finding]:
    """Ask each issuer about the token, or about a made-up one, with our own credentials."""
    if not subject.issuers:
        yield skipped(NO_ISSUER)
    for each in subject.issuers:
        if each.settings.introspection_client_id is None:
            yield skipped(f"no introspection_client_id is set, so {each.name} is not asked about tokens")
        elif each.failure and each.settings.introspection_url is None:
            yield skipped(f"{each.name} was not reached")
        else:
            yield _introspected(subject, each)


def _introspected(subject: Subject, issuer: Issuer) -> Finding:
    try:
        options = issuer.settings.introspector_options()
    except ConfigError as error:
        return subject.wrong(GENERAL, error)
    endpoint = issuer_endpoint(
        "introspection_endpoint",
        options["issuer"],
        subject.transport,
        url=options["endpoint"],
        setting="introspection_url",
        discover=options["discover"],
        discover_hosts=options["discover_hosts"],
        clock=SYSTEM_CLOCK,
    )
    is_own = bool(subject.token) and (unverified(subject.token).claims or {}).get("iss") == issuer.name
    form, headers = authenticated(
        {"token": subject.token if is_own else _MADE_UP, "token_type_hint": "access_token"},
        options["auth_method"],
        options["client_id"],
        options["client_secret"],
    )
    try:
        answer = endpoint.fetch("POST", form=form, headers=headers).result(4 * subject.evidence.timeout)
    except TimeoutError:
        return fault("introspection-unavailable", f"{endpoint.url}: {in_words('timeout')}")
    except TransportError as error:
        return fault("introspection-unavailable", f"{endpoint.url}: {in_words(error.reason)}")
    return _of_word(answer, endpoint.url, is_own=is_own)


def _of_word(answer: HttpResponse, url: str, *, is_own: bool) -> Finding:
    try:
        said = json_object(answer.body)
    except EncodingError:
        said = {}
    is_refused = answer.status == _UNAUTHORIZED or (
        answer.status == _BAD_REQUEST and said.get("error") in ("invalid_client", "unauthorized_client")
    )
    if is_refused:
        found = f"{url}: {causes.status(answer.status)} (the issuer refuses introspection_client_id and its secret)"
        return fault("introspection-wrong-secret", found, "an answer about the token")
    active = said.get("active")
    if answer.status != _OK or not isinstance(active, bool):
        found = causes.status(answer.status) if answer.status != _OK else "an answer without active"
        return fault("introspection-unavailable", f"{url}: {found}", "a JSON object with active (RFC 7662)")
    if is_own and not active:
        return fault("introspection-inactive", f"{url}: the token is not active", "active is true")
    return ok(f"{url} answers about {'the token: active' if is_own else 'a made-up token'}")
