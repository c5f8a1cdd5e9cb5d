"""The figures of an authorization server for Prometheus.

Every label value comes from the configuration or from a closed set, none from a caller.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from authz.decisions.decision import BUCKETS, Decision, Source, Verdict
from authz.errors import ConfigError
from authz.issuer.introspection import IntrospectionCounters
from authz.issuer.keys import KeySetHealth
from authz.judge.authorizer import Authorizer
from authz.judge.reload import Reloader
from authz.server.operations.exposition import PLAIN, Format
from authz.server.operations.process_figures import ProcessFigures
from authz.server.operations.usage_figures import UsageFigures
from authz.token.memory import MemoryFigures

if TYPE_CHECKING:
    from authz.store.usage.writer import UsageWriter

# Names the folder where workers write their figures; prometheus-client reads this variable.
_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Of several workers: the highest or the lowest figure, or the sum; "live" leaves out workers that have ended.
GaugeMode = Literal["livemax", "livemin", "livesum"]

# How old the figures of a worker are at most; those of a single process are read when Prometheus asks.
_REFRESH_SECONDS = 1.0


class Metrics:
    """Count decisions as an observer of the authorizer, and read all other figures when Prometheus asks.

    Args:
        engine: the name of the engine, for the label.
        dropped: returns how many lines the decision log has dropped so far, if there is one.
        worker: the number of this process, if it is one of several workers. Its figures are then in files, which
            :class:`SharedMetrics` adds up.
        organizations: how many organizations have figures of their own.
        usage: sends the counts of organizations to a store, if there is one.

    Attributes:
        usage: the figures about usage, which are an observer of their own.

    """

    def __init__(
        self,
        *,
        engine: str,
        dropped: Callable[[], int] | None = None,
        worker: int | None = None,
        organizations: int = 0,
        usage: "UsageWriter | None" = None,
    ) -> None:
        if worker is not None:
            # By number, not by process id: so a successor counts on, and files of ended workers do not pile up.
            values.ValueClass = values.MultiProcessValue(lambda: worker)
        disable_created_metrics()
        self._dropped = dropped
        self._registry = registry = CollectorRegistry()
        self._lock, self._refreshing = threading.Lock(), threading.Lock()
        self._tally: Tally[tuple[Verdict, str, Source]] = Tally()
        self._counted: Tally[tuple[str, ...]] = Tally()
        counter, gauge = self._counter, self._gauge
        self._checks = counter("authz_checks", "Checks by outcome.", "verdict", "reason")
        self._evidence = counter("authz_evidence", "Checks by what the verdict rests on.", "source")
        self._seconds = Histogram(
            "authz_check_seconds", "Duration of a check, waiting included.", registry=registry, buckets=BUCKETS
        )
        self._pending = gauge("authz_pending_checks", "Checks that wait for keys or the issuer.", "livesum")
        ready = gauge("authz_ready", "Whether checks can be decided.", "livemax", "worker")
        self._ready = ready.labels(str(worker or 0))
        self._age = gauge("authz_jwks_age_seconds", "Since keys were fetched last.", "livemax", "issuer")
        self._keys = gauge("authz_jwks_keys", "Keys of the issuer.", "livemin", "issuer")
        self._failing = gauge("authz_jwks_failing", "Whether the last fetch failed.", "livemax", "issuer")
        self._tokens = gauge("authz_tokens_remembered", "Verified tokens that are remembered.", "livesum", "issuer")
        self._token_bytes = gauge("authz_token_memory_bytes", "What they take at the most.", "livesum", "issuer")
        self._token_limit = gauge("authz_token_memory_limit_bytes", "What they may take.", "livesum", "issuer")
        self._forgotten = counter("authz_tokens_forgotten", "Tokens that left early, for newer ones.", "issuer")
        self._fetches = counter("authz_jwks_fetches", "Fetches of keys.", "issuer", "result")
        self._failures = counter("authz_fetch_failures", "Failed requests to other servers.", "of", "cause")
        self._introspection = counter(
            "authz_introspection_requests", "Questions to the issuer about a token.", "result"
        )
        self._directory = counter(
            "authz_directory_requests", "Questions to the directory about an organization.", "result"
        )
        self._lost = counter("authz_decision_log_dropped", "Decisions that were not logged.")
        self._access_log = counter("authz_access_log", "What Envoy has told of calls that it decided.", "result")
        self._reloads = counter("authz_policy_reloads", "Reloads of policies.", "result")
        self._stale = gauge("authz_policy_failing", "Whether the last reload failed.", "livemax")
        self._loaded = gauge("authz_policy_loaded_timestamp_seconds", "When the policy was loaded.", "livemin")
        self._differences = counter(
            "authz_shadow_differences", "Checks that the shadow would decide otherwise.", "change"
        )
        self._leases = counter("authz_quota_leases", "Leases of shared quotas, and calls counted without.", "result")
        self._offered = counter("authz_memo_offered", "Answers that Envoy may repeat.")
        build = gauge("authz_build_info", "What is running.", "livemax", "version", "engine")
        build.labels(version("grpc-org-authz"), engine).set(1)
        self.usage = UsageFigures(registry, organizations, usage)
        if worker is None:
            registry.register(_Workers(running=1, restarts=0, hangs=0))
            registry.register(ProcessFigures())

    def __call__(self, decision: Decision) -> None:
        """Count one decision."""
        refusal = decision.refusal
        what = decision.verdict, "" if refusal is None else refusal.reason, decision.evidence.source
        # One number now costs a third of two counters; the counters are brought up to date when Prometheus asks.
        with self._lock:
            self._tally[what] += 1
        if decision.evidence.source != "envoy":
            self._seconds.observe(decision.seconds)

    def refresh(
        self,
        authorizer: Authorizer,
        *,
        is_ready: bool,
        pending: int,
        offered: int = 0,
        reloader: Reloader | None = None,
        access_log: Mapping[str, int] | None = None,
    ) -> None:
        """Bring all figures up to date.

        Args:
            authorizer: the judge.
            is_ready: whether checks can be decided.
            pending: how many checks wait.
            offered: how many answers Envoy may repeat, so far.
            reloader: reloads the policies, if they come from files.
            access_log: counts what Envoy has told, by what came of it.

        """
        with self._refreshing:
            self._count_decisions()
            self.usage.refresh()
            self._ready.set(is_ready)
            self._pending.set(pending)
            self._count_up(self._offered, offered, "memo")
            for issuer, health in authorizer.verifier.health().items():
                self._tell_keys(issuer, health)
                self._tell_tokens(issuer, authorizer.verifier.memories[issuer].figures())
            for issuer, introspector in authorizer.introspectors.items():
                self._tell_introspection(issuer, introspector.counters)
                self._tell_failures("introspection", issuer, introspector.causes)
            asked, causes = Tally[str](), Tally[str]()
            for directory in authorizer.directories:
                asked.update(asdict(directory.counters))
                causes.update(directory.causes.copy())
            self._tell_failures("organizations", "", causes)
            for result, total in asked.items():
                self._count_up(self._directory.labels(result), total, "directory", result)
            for result, total in authorizer.quotas.counts.items():
                self._count_up(self._leases.labels(result), total, "quotas", result)
            for change, total in authorizer.shadow.differences.copy().items():
                self._count_up(self._differences.labels(change), total, "shadow", change)
            for result, total in (access_log or {}).items():
                self._count_up(self._access_log.labels(result), total, "access log", result)
            if reloader is not None:
                self._tell_reloads(reloader)
            if self._dropped is not None:
                self._count_up(self._lost, self._dropped(), "decision log")

    def add(self, figures: Collector) -> None:
        """Tell these figures as well."""
        self._registry.register(figures)

    def text(self, form: Format = PLAIN) -> bytes:
        """Return all figures of this process in a format."""
        return form.write(self._registry)

    def _count_decisions(self) -> None:
        with self._lock:
            tally, self._tally = self._tally, Tally()
        for (verdict, reason, source), count in tally.items():
            self._checks.labels(verdict, reason).inc(count)
            self._evidence.labels(source).inc(count)

    def _tell_keys(self, issuer: str, health: KeySetHealth) -> None:
        self._keys.labels(issuer).set(health.keys)
        self._failing.labels(issuer).set(bool(health.error))
        if health.age is not None:
            self._age.labels(issuer).set(health.age)
        for result, total in (("ok", health.fetches), ("failed", health.failures)):
            self._count_up(self._fetches.labels(issuer, result), total, "jwks", issuer, result)
        self._tell_failures("keys", issuer, health.causes)

    def _tell_tokens(self, issuer: str, memory: MemoryFigures) -> None:
        self._tokens.labels(issuer).set(memory.tokens)
        self._token_bytes.labels(issuer).set(memory.bytes)
        self._token_limit.labels(issuer).set(memory.limit)
        self._count_up(self._forgotten.labels(issuer), memory.forgotten, "tokens", issuer)

    def _tell_failures(self, what: str, source: str, causes: Mapping[str, int]) -> None:
        # A copy: another thread counts failures meanwhile.
        for cause, total in dict(causes).items():
            self._count_up(self._failures.labels(what, cause), total, "failures", what, source, cause)

    def _tell_introspection(self, issuer: str, counters: IntrospectionCounters) -> None:
        results = {
            "active": counters.active,
            "inactive": counters.inactive,
            "failed": counters.failures,
            "refused": counters.refused,
            "overloaded": counters.overloaded,
        }
        for result, total in results.items():
            self._count_up(self._introspection.labels(result), total, "introspection", issuer, result)

    def _tell_reloads(self, reloader: Reloader) -> None:
        self._stale.set(reloader.is_failing)
        self._loaded.set(reloader.loaded_at)
        for result in ("ok", "failed"):
            self._count_up(self._reloads.labels(result), reloader.results[result], "reloads", result)

    def _count_up(self, counter: Counter, total: int, *source: str) -> None:
        """Add to ``counter`` by how much ``total`` has grown since it was read last from ``source``."""
        counter.inc(total - self._counted[source])
        self._counted[source] = total

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, mode: GaugeMode, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self._registry, multiprocess_mode=mode)


@contextlib.asynccontextmanager
async def kept_fresh(refresh: Callable[[], None]) -> AsyncIterator[None]:
    """Have ``refresh`` called every second, and once more at the end of the block."""
    refreshing = asyncio.create_task(_again_and_again(refresh))
    try:
        yield
    finally:
        refreshing.cancel()
        refresh()


async def _again_and_again(refresh: Callable[[], None]) -> None:
    while True:
        refresh()
        await asyncio.sleep(_REFRESH_SECONDS)


class _Workers(Collector):
    def __init__(self, running: int, restarts: int, hangs: int) -> None:
        self._running, self._restarts, self._hangs = running, restarts, hangs

    def collect(self) -> Iterator[Metric]:
        """Yield how many workers run, how many were started because another had died, and how many hung."""
        yield GaugeMetricFamily("authz_workers", "Workers that run.", value=self._running)
        yield CounterMetricFamily("authz_worker_restarts", "Workers started after a death.", value=self._restarts)
        yield CounterMetricFamily("authz_worker_hangs", "Workers ended as they hung.", value=self._hangs)


class SharedMetrics:
    """The figures of all workers, added up; a context manager that owns the folder of their files.

    Raises:
        ConfigError: no folder for temporary files can be written to.

    """

    def __init__(self) -> None:
        disable_created_metrics()
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="authz-metrics-", ignore_cleanup_errors=True)
        except OSError:
            raise ConfigError(
                "workers: there is no folder to share figures in; mount a writable /tmp, or name one in TMPDIR"
            ) from None

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that workers need."""
        return {_FOLDER_VARIABLE: self._folder.name}

    def ended(self, worker: int) -> None:
        """Note that a worker has ended: its state is dropped, and what it has counted stays."""
        mark_process_dead(worker, self._folder.name)

    def text(
        self, form: Format = PLAIN, *, running: int, restarts: int, hangs: int, more: Sequence[Collector] = ()
    ) -> bytes:
        """Return all figures in a format.

        Args:
            form: the format.
            running: how many workers there are.
            restarts: how many have been started because another had died.
            hangs: how many were killed because they gave no sign of life.
            more: figures of this process.

        """
        registry = CollectorRegistry()
        registry.register(MultiProcessCollector(None, self._folder.name))
        registry.register(_Workers(running, restarts, hangs))
        for figures in more:
            registry.register(figures)
        return form.write(registry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
