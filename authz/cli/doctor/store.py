"""The store that replicas share: whether it can be used, keeps what it is told, and has the right time."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from authz.cli.doctor.findings import Finding, fault, ok, skipped
from authz.cli.doctor.issuer import clocks
from authz.cli.doctor.subject import GENERAL, Subject
from authz.errors import ConfigError

if TYPE_CHECKING:
    from authz.store.connection import Store

_CODES = {"denied": "store-denied", "version": "store-unfit", "eviction": "store-unfit"}
# Orders have the times of the store.
_APART = 10.0


def check_store(subject: Subject) -> Iterator[Finding]:
    """Ask the stores about themselves; nothing is written."""
    settings = subject.settings
    if settings.store is None:
        yield skipped("no store is set")
        return
    stores = {settings.store: settings}
    if settings.quota_store is not None:
        stores[settings.quota_store] = settings.model_copy(update={"store": settings.quota_store})
    for url, each in stores.items():
        try:
            from authz.store.connection import Store, StoreError  # noqa: PLC0415 - the extra's

            store = Store.of(each)
        except ConfigError as error:
            yield subject.wrong(GENERAL, error)
            continue
        if store is None:
            continue
        try:
            yield from _of_store(store, keeps_orders=url == settings.store)
        except StoreError as error:
            code = _CODES.get(error.reason, "store-unavailable")
            yield fault(code, str(error), "a store that can be used")
        finally:
            store.close()


def _of_store(store: "Store", *, keeps_orders: bool) -> Iterator[Finding]:
    if keeps_orders:
        store.check()
    with store.asking() as client:
        info: Any = client.info()
        began = time.time()
        seconds, microseconds = client.time()
        took = time.time() - began
    version = info.get("valkey_version") or info.get("redis_version")
    yield ok(f"{store.address} answers: {info.get('server_name', 'redis')} {version}")
    if keeps_orders and not info.get("aof_enabled"):
        yield fault("store-not-durable", f"{store.address}: appendonly no", "appendonly yes")
    yield clocks(began - (seconds + microseconds / 1e6), took, _APART, store.address)
