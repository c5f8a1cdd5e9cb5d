"""The observers of a server process: each is told of every decision, and the settings say which there are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from authz.decisions.audit import Audit
from authz.decisions.decision import Observer
from authz.decisions.log import DecisionLog
from authz.runtime import telemetry
from authz.server.admin.activity import Activity
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.server.operations.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Observers:
    """A context manager that closes the decision log at its end; each observer is ``None`` where none is wanted.

    Attributes:
        log: the decision log.
        metrics: the figures for Prometheus.
        audit: the service whose clients watch decisions.
        activity: what the admin page shows.

    """

    log: DecisionLog | None
    metrics: "Metrics | None"
    audit: Audit | None
    activity: Activity | None

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
        return cls(
            log,
            None if settings.http_listen is None else _metrics(settings.engine, log, worker),
            None if settings.audit_listen is None else Audit(),
            None if settings.admin is None else Activity(),
        )

    def __iter__(self) -> Iterator[Observer]:
        """Yield those that there are."""
        every: tuple[Observer | None, ...] = (self.log, self.metrics, self.audit, self.activity)
        return (observer for observer in every if observer is not None)

    def reopen_log(self) -> None:
        """Open the file of the decision log anew, after a program that rotates logs has renamed it."""
        telemetry.event(telemetry.INFO, "hung_up")
        if self.log is not None:
            self.log.reopen()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.log is not None:
            self.log.close()


def _metrics(engine: str, log: DecisionLog | None, worker: int | None) -> "Metrics":
    # Imported late: it takes a fifth of a second to load, and only a server with http_listen needs it.
    from authz.server.operations.metrics import Metrics  # noqa: PLC0415

    return Metrics(engine=engine, dropped=None if log is None else lambda: log.dropped, worker=worker)
