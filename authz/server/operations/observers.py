"""The observers of a server process: each is told of every decision, and the settings say which there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from authz.decisions.decision import Observer
from authz.decisions.log import DecisionLog
from authz.decisions.sample import Sample
from authz.decisions.usage import Usage
from authz.runtime import telemetry
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.decisions.audit import Audit
    from authz.server.admin.activity import Activity
    from authz.server.operations.metrics import Metrics
    from authz.store.usage.writer import UsageWriter


@dataclass(frozen=True, slots=True)
class Observers:
    """A context manager that closes the decision log at its end; each observer is ``None`` where none is wanted.

    Attributes:
        log: the decision log.
        metrics: the figures for Prometheus.
        audit: the service whose clients watch decisions.
        activity: what the admin page shows.
        usage: sends to the store how much each organization uses.
        sample: what a worker has for the admin pages of other replicas.

    """

    log: DecisionLog | None
    metrics: "Metrics | None"
    audit: "Audit | None"
    activity: "Activity | None"
    usage: "UsageWriter | None"
    sample: Sample | None

    @classmethod
    def of(cls, settings: Settings, worker: int | None = None) -> Self:
        """Return the observers that the settings ask for.

        Args:
            settings: the settings.
            worker: the number of this process, if it is one of several workers.

        Raises:
            ConfigError: the decision log cannot be opened.

        """
        log: DecisionLog | None = None
        if settings.decision_log != "off":
            log = DecisionLog(settings.decision_log, settings.decision_log_file)
        usage = _usage(settings)
        return cls(
            log,
            None if settings.http_listen is None else _metrics(settings, log, worker, usage),
            _audit(settings),
            _activity(settings),
            usage,
            # A process without a supervisor shares it by itself.
            None if settings.store is None or worker is None else Sample(),
        )

    def __iter__(self) -> Iterator[Observer]:
        """Yield those that there are."""
        every: tuple[Observer | None, ...] = (
            *(self.log, self.metrics, self.audit, self.activity, self.sample),
            None if self.usage is None else self.usage.usage,
            self.metrics.usage if self.metrics is not None and self.metrics.usage.is_wanted else None,
        )
        return (observer for observer in every if observer is not None)

    def reopen_log(self) -> None:
        """Open the file of the decision log anew, after a program that rotates logs has renamed it."""
        telemetry.event(telemetry.INFO, "hung_up")
        if self.log is not None:
            self.log.reopen()

    def __enter__(self) -> Self:
        if self.usage is not None:
            self.usage.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.usage is not None:
            self.usage.stop()
            self.usage.store.close()
        if self.log is not None:
            self.log.close()


def _metrics(settings: Settings, log: DecisionLog | None, worker: int | None, usage: "UsageWriter | None") -> "Metrics":
    # Imported late: it takes a fifth of a second to load, and only a server with http_listen needs it.
    from authz.server.operations.metrics import Metrics  # noqa: PLC0415

    dropped = None if log is None else lambda: log.dropped
    organizations = settings.usage_metrics_by_organization
    return Metrics(engine=settings.engine, dropped=dropped, worker=worker, organizations=organizations, usage=usage)


def _audit(settings: Settings) -> "Audit | None":
    if settings.audit_listen is None:
        return None
    from authz.decisions.audit import Audit  # noqa: PLC0415 - not needed without watchers

    return Audit()


def _activity(settings: Settings) -> "Activity | None":
    if settings.admin is None:
        return None
    from authz.server.admin.activity import Activity  # noqa: PLC0415 - not needed without a page

    return Activity()


def _usage(settings: Settings) -> "UsageWriter | None":
    if settings.store is None or not settings.usage_days:
        return None
    # Late, as above: without a store nothing of it is imported.
    from authz.store.connection import Store  # noqa: PLC0415
    from authz.store.usage.writer import UsageWriter  # noqa: PLC0415

    store = Store.of(settings)
    return None if store is None else UsageWriter(store, Usage(), days=settings.usage_days)
