"""The issuer: whether it can be reached, whether it is the right one, its clock, and its keys."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from authz.cli.doctor.findings import Finding, Level, fault, ok, skipped
from authz.cli.doctor.reaching import in_words, unreachable
from authz.cli.doctor.subject import GENERAL, Answer, Issuer, Subject, quoted
from authz.errors import ConfigError
from authz.issuer.discovery import metadata_urls
from authz.issuer.keys import load_jwks
from authz.runtime.network import causes
from authz.runtime.network.transport import HttpResponse, TransportError
from authz.runtime.network.urls import check_issuer_url, check_url
from authz.token.encoding import EncodingError, json_object
from authz.token.jwk import KeyRing, check_algorithms, parse_jwks

MOST_APART = 60.0
"""Seconds by which clocks may differ before that is an error: then fresh tokens look expired, or not yet valid."""

_OK = 200
_MAX_CONTAINERS = 1024
# The server was there, and said something that is of no use.
_ANSWERED = frozenset({"redirect", "too_large", "encoding", "protocol"})
NO_ISSUER = "no issuer is set that could be asked"


def check_issuer(subject: Subject) -> Iterator[Finding]:
    """Ask each issuer for its metadata, and see whether it answers at all."""
    if not subject.issuers:
        yield skipped(NO_ISSUER)
    for each in subject.issuers:
        if each.settings.jwks is not None and not _is_asked(subject, each):
            yield skipped(f"the keys of {each.name} are set (jwks), and it is asked nothing else")
            continue
        yield from _reach(subject, each)


def _is_asked(subject: Subject, issuer: Issuer) -> bool:
    return issuer.settings.introspection_client_id is not None or subject.evidence.client_id is not None


def _reach(subject: Subject, issuer: Issuer) -> Iterator[Finding]:
    try:
        urls = metadata_urls(check_issuer_url(issuer.name))
    except ConfigError as error:
        issuer.failure = True
        yield subject.wrong(GENERAL, error)
        return
    for url in urls:
        began = time.monotonic()
        try:
            response = subject.ask("GET", url)
        except TransportError as error:
            if error.reason not in _ANSWERED:
                issuer.failure = True
                yield unreachable(url, error.reason, subject.settings, subject.evidence.timeout)
                return
            issuer.answers.append(error.reason)
            continue
        issuer.answers.append(Answer(response=response, took=time.monotonic() - began))
        if _document(response) is not None:
            break
    yield ok(f"{issuer.name} answers")


def check_metadata(subject: Subject) -> Iterator[Finding]:
    """See whether each issuer's metadata is its own (RFC 8414 section 3.3)."""
    if not subject.issuers:
        yield skipped(NO_ISSUER)
    for each in subject.issuers:
        if not each.answers:
            yield skipped(f"{each.name} was not reached" if each.failure else f"{each.name} is not asked")
            continue
        yield _of_metadata(each)


def _of_metadata(issuer: Issuer) -> Finding:
    documents = [_document(each.response) for each in issuer.answers if isinstance(each, Answer)]
    found = [each for each in documents if each is not None]
    if not found:
        words = ", ".join(dict.fromkeys(_word(each) for each in issuer.answers))
        level: Level | None = "error" if issuer.settings.discover else None
        return fault("metadata-missing", f"{issuer.name}: {words}", "a JSON document that names it", level=level)
    issuer.metadata = next((each for each in found if each.get("issuer") == issuer.name), None)
    if issuer.metadata is None:
        return fault("issuer-mismatch", f"metadata of {quoted(found[0].get('issuer'))}", quoted(issuer.name))
    return ok(f"it names {issuer.name}")


def _word(answer: Answer | str) -> str:
    if isinstance(answer, str):
        return answer
    return causes.status(answer.response.status) if answer.response.status != _OK else "not JSON"


def _document(response: HttpResponse) -> Mapping[str, Any] | None:
    try:
        return json_object(response.body, max_containers=_MAX_CONTAINERS) if response.status == _OK else None
    except EncodingError:
        return None


def check_clock(subject: Subject) -> Iterator[Finding]:
    """Compare the clock here with that of each issuer, as its answers tell it."""
    if not subject.issuers:
        yield skipped(NO_ISSUER)
    for each in subject.issuers:
        told = [answer for answer in each.answers if isinstance(answer, Answer) and answer.response.date is not None]
        if not told:
            why = "was not reached" if each.failure else "has told no time"
            yield skipped(f"{each.name} {why}")
            continue
        [answer, *_] = told
        apart = answer.response.received_at - (answer.response.date or 0.0) - _age(answer.response)
        # The issuer writes whole seconds, at some time between question and answer.
        yield clocks(apart, answer.took + 1.0, each.settings.leeway, each.name)


def _age(response: HttpResponse) -> float:
    # RFC 9111 section 5.1: a cache on the way says for how long it has kept the answer.
    text = response.headers.get("age", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0.0  # noqa: PLR2004


def clocks(apart: float, unsure: float, leeway: float, whose: str) -> Finding:
    """Return what it means that the clock here and another differ.

    Args:
        apart: by how many seconds the one here is ahead.
        unsure: how many of them may be for the time that the answer took.
        leeway: how many may be.
        whose: the other clock.

    """
    surely = max(0.0, abs(apart) - unsure)
    word = "ahead of" if apart > 0 else "behind"
    if surely <= leeway:
        return ok(f"within {leeway:g} s of {whose}" if leeway else f"the same as {whose}")
    level: Level = "error" if surely > max(MOST_APART, leeway) else "warning"
    found = f"the clock here is {abs(apart):.0f} s {word} that of {whose}"
    return fault("clock-skew", found, f"at most {leeway:g} s apart (leeway)", level=level)


def check_keys(subject: Subject) -> Iterator[Finding]:
    """Count the keys of each issuer that can verify a token, by algorithm."""
    if not subject.issuers:
        yield skipped(NO_ISSUER)
    for each in subject.issuers:
        if each.failure and each.settings.jwks is None and each.settings.jwks_url is None:
            yield skipped(f"{each.name} was not reached")
            continue
        try:
            finding = _of_keys(subject, each)
        except ConfigError as error:
            is_static = each.settings.jwks is not None
            finding = subject.wrong("keys-none-usable" if is_static else GENERAL, error)
        each.has_keys = finding.level == "ok"
        yield finding


def _of_keys(subject: Subject, issuer: Issuer) -> Finding:
    settings = issuer.settings
    if settings.jwks is not None:
        return _count(load_jwks(settings.jwks, "jwks"), settings.algorithms, "the static set")
    url = _jwks_url(issuer)
    if url is None:
        return skipped(f"where the keys of {issuer.name} are would stand in its metadata")
    try:
        response = subject.ask("GET", check_url(url, "jwks_url"))
    except TransportError as error:
        if error.reason == "certificate" and settings.jwks_url is not None:
            return unreachable(url, error.reason, subject.settings, subject.evidence.timeout)
        return fault("keys-unavailable", f"{url}: {in_words(error.reason)}", "a JWK Set")
    try:
        ring = _ring(response)
    except ValueError as error:
        return fault("keys-unavailable", f"{url}: {error}", "a JWK Set")
    return _count(ring, settings.algorithms, url)


def _ring(response: HttpResponse) -> KeyRing:
    """Return the keys of an answer.

    Raises:
        ValueError: it is no key set.

    """
    if response.status != _OK:
        raise ValueError(causes.status(response.status))
    try:
        return parse_jwks(json_object(response.body, max_containers=_MAX_CONTAINERS))
    except EncodingError:
        kind = response.headers.get("content-type", "no content-type")
        raise ValueError(f"{kind}, {in_words('not JSON')}") from None


def _jwks_url(issuer: Issuer) -> str | None:
    if issuer.settings.jwks_url is not None:
        return issuer.settings.jwks_url
    if not issuer.settings.discover:
        return f"{issuer.name.rstrip('/')}/oauth2/jwks"
    url = (issuer.metadata or {}).get("jwks_uri")
    if not isinstance(url, str):
        return None
    hosts = {str(urlsplit(issuer.name).hostname), *map(str.lower, issuer.settings.discover_hosts or ())}
    if urlsplit(url).hostname not in hosts:
        raise ConfigError(
            f"discover_hosts: the metadata of {issuer.name} names keys at {url!a}; allow the host with --discover-hosts"
        )
    return url


def _count(ring: KeyRing, algorithms: list[str], where: str) -> Finding:
    allowed = check_algorithms(algorithms)
    keys = [key for named in ring.keys.values() for key in named]
    counts = Counter(name for key in keys for name in key.algorithms & allowed)
    left_out = [ring.why_dropped()] if ring.dropped else []
    unfit = [
        f"key {key.kid!a}: for {', '.join(sorted(key.algorithms))}" for key in keys if not key.algorithms & allowed
    ]
    reasons = "; ".join([*left_out, *unfit])
    if not counts:
        expected = f"a key for {' or '.join(sorted(allowed))}"
        return fault("keys-none-usable", f"{where}: {reasons or 'no key at all'}", expected)
    usable = ", ".join(f"{counts[name]} for {name}" for name in sorted(counts))
    return ok(f"{usable}" + (f"; not used: {reasons}" if reasons else ""))
