"""WorkOS: whether it answers what is asked of it, its webhooks can be taken, and orders be made of what it tells."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.reaching import in_words
from authz.cli.doctor.subject import Subject
from authz.errors import ConfigError
from authz.organizations.workos import api_url
from authz.runtime.asking import NoAnswerError
from authz.runtime.configuration import extra
from authz.runtime.network.addresses import parse
from authz.settings.issuer import needed_secret

if TYPE_CHECKING:
    from authz.store.connection import Store

# There is none of this name.
_NO_ORGANIZATION = "org_authz0doctor"
_ABOVE = "of what is said of the store above"


def check_workos(subject: Subject) -> Iterator[Finding]:
    """Ask WorkOS once for each thing that a server would ask it for; see whether the rest fits."""
    settings = subject.settings
    if settings.workos_api_key is None and settings.workos_api_key_file is None:
        yield skipped("no workos_api_key is set")
        return
    for what, ask in _questions(subject).items():
        yield _answer(what, ask)
    if settings.workos_webhooks is not None:
        yield _webhooks(subject, settings.workos_webhooks)
    if settings.workos_events and settings.store is not None:
        yield _orders(subject)


def _questions(subject: Subject) -> Mapping[str, Callable[[], object]]:
    """Return how WorkOS is asked about each thing that these settings need.

    Raises:
        ConfigError: a setting is missing or cannot work, or the extra is not installed.

    """
    settings = subject.settings
    key = needed_secret("workos_api_key", settings.workos_api_key, settings.workos_api_key_file)
    subject.hide(key)
    with extra("workos", "workos_api_key: it needs the extra", package="workos"):
        from authz.server.workos.api import EventsApi  # noqa: PLC0415 - it loads slowly
        from authz.server.workos.applications_api import ApplicationsApi  # noqa: PLC0415 - as above
        from authz.server.workos.place import Cursor  # noqa: PLC0415 - as above

    asked = key, api_url(key, settings.workos_base_url), subject.transport
    applications, events, now = ApplicationsApi(*asked), EventsApi(*asked), time.time()
    questions: dict[str, Callable[[], object]] = {
        "organizations": lambda: applications.has_organization(_NO_ORGANIZATION)
    }
    if settings.workos_events:
        questions["events"] = lambda: events.page(Cursor("", now), 1, now)
    if settings.workos_applications:
        questions["applications"] = lambda: applications.page("")
    return questions


def _answer(what: str, ask: Callable[[], object]) -> Finding:
    try:
        ask()
    except NoAnswerError as failure:
        code = "workos-key-refused" if failure.is_ours else "workos-unavailable"
        return fault(code, f"{what}: {in_words(str(failure))}", "an answer")
    return ok(f"it answers about {what}")


def _webhooks(subject: Subject, address: str) -> Finding:
    try:
        secrets = subject.settings.webhook_secrets()
    except ConfigError as error:
        return subject.wrong("webhooks-unusable", error)
    for secret in secrets:
        subject.hide(secret)
    if not parse("workos_webhooks", address).is_local:
        found = f"workos_webhooks: {address} can be reached by other machines, and has no TLS"
        return fault("webhooks-without-tls", found, "a loopback address behind a proxy that has TLS")
    return ok(f"webhooks are taken at {address}, by {'1 secret' if len(secrets) == 1 else f'{len(secrets)} secrets'}")


def _orders(subject: Subject) -> Finding:
    """See whether the user of the store may give orders; a key is removed that there is not."""
    from authz.store.connection import Store, StoreError  # noqa: PLC0415 - the extra's

    try:
        store = Store.of(subject.settings)
    except ConfigError:
        return skipped(_ABOVE)
    if store is None:
        return skipped(_ABOVE)
    try:
        _remove_nothing(store)
    except StoreError as error:
        if error.reason != "denied":
            return skipped(_ABOVE)
        user = subject.settings.store_username or "default"
        return fault("store-read-only", f"{store.address}: the user {user} may not give orders", "one that may")
    finally:
        store.close()
    return ok(f"orders can be given in {store.address}")


def _remove_nothing(store: "Store") -> None:
    with store.asking() as client:
        for name in ("{orders}:doctor", "{workos}:doctor"):
            client.delete(store.key(name))
