"""Policies that follow their files: what has changed is read, checked, and put in force in one step, or not at all."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Literal, Self

from authz.errors import ConfigError
from authz.judge.authorizer import Authorizer
from authz.policy import Policy
from authz.runtime import telemetry
from authz.runtime.background import background
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.watch import Files, Seen, Watch, noting

_MOST_ABANDONED = 5
"""So often in a row files may change while they are read; then the operator has to know that they are not in force."""

Load = Callable[[], tuple[Policy | None, Callable[[], object]]]
"""Makes a policy, and all that belongs to it, of its files; returns the policy, and what puts everything in force."""


class Source:
    """One policy and its files.

    Args:
        what: ``policy``, or ``shadow`` for one on trial.
        files: those that it is made of.
        load: makes it.

    Attributes:
        is_failing: whether its files, as they are now, cannot be used.

    """

    def __init__(self, what: Literal["policy", "shadow"], files: Files, load: Load) -> None:
        self.what, self.files, self._load = what, files, load
        self.is_failing = False
        self._abandoned = 0

    def reload(self) -> bool:
        """Put the policy in force as its files are now; return whether they stayed the same meanwhile, or nothing is.

        Raises:
            ConfigError: they cannot be used, or change each time that they are read.

        """
        began = perf_counter()
        with background():
            loaded = self._loaded()
            if loaded is None:
                # Nothing is put in force, although the next look may find what this one has found.
                self.files.forget()
                self._abandoned += 1
                if self._abandoned >= _MOST_ABANDONED:
                    raise ConfigError(
                        f"{self.what}: its files change again and again while they are read, so what they say is not "
                        "in force; write them less often"
                    )
                return False
            self._abandoned = 0
            policy, put = loaded
            put()
        told: dict[str, object] = {}
        if policy is not None:
            rules = len(policy.rules) + len(policy.requirements)
            told = {"policy": policy.name, "rules": rules, "organizations": len(policy.organizations)}
        milliseconds = round((perf_counter() - began) * 1e3, 1)
        telemetry.event(telemetry.INFO, f"{self.what}_reloaded", **told, milliseconds=milliseconds)
        return True

    def _loaded(self) -> tuple[Policy | None, Callable[[], object]] | None:
        """Return what the files say; ``None`` if they changed meanwhile.

        Raises:
            ConfigError: they cannot be used.

        """
        try:
            with noting() as noted:
                loaded = self._load()
        except ConfigError:
            if self._have_stayed(noted):
                raise
            return None
        return loaded if self._have_stayed(noted) else None

    def _have_stayed(self, noted: Sequence[Seen]) -> bool:
        # Even if they cannot be used: what is wrong may be put right in a file that another one names.
        self.files.follow(noted)
        return self.files.are_the_same()


class Reloader:
    """Put policies in force whenever their files change, until the end of the ``with`` block.

    Args:
        sources: the policies; changes since their ``files`` were built count.
        changed: is called after every reload, on another thread.
        clock: tells the time of day.

    Attributes:
        results: how many reloads were ``ok``, and how many ``failed``.
        loaded_at: since when the policy is in force, in POSIX seconds.

    Raises:
        ConfigError: the extra is not installed.

    """

    def __init__(
        self, sources: Sequence[Source], *, changed: Callable[[], object] = lambda: None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._sources = {source.files: source for source in sources}
        self._tell, self._clock = changed, clock
        self._watch = Watch(list(self._sources), self._follow)
        self.results: Counter[Literal["ok", "failed"]] = Counter()
        self.loaded_at = clock.time()

    @property
    def is_failing(self) -> bool:
        """Whether files, as they are now, cannot be used, so that an earlier version of them is still in force."""
        return any(source.is_failing for source in self._sources.values())

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.stop()

    def _follow(self, files: Files) -> None:
        source = self._sources[files]
        try:
            if not source.reload():
                return
        except BaseException as error:  # noqa: BLE001 - even SystemExit in load: later changes must still be followed
            source.is_failing = True
            self.results["failed"] += 1
            if isinstance(error, ConfigError):
                telemetry.event(telemetry.ERROR, f"{source.what}_reload_failed", error=str(error))
            else:
                telemetry.unforeseen("reload", error)
        else:
            source.is_failing = False
            self.results["ok"] += 1
            if source.what == "policy":
                self.loaded_at = self._clock.time()
        self._tell()


class PolicyReloader(Reloader):
    """Keep an authorizer's policy as its file says, from the beginning of a ``with`` block to its end.

    The file is read at the beginning, and whenever it changes. A file that cannot be used is logged
    (``policy_reload_failed``), and the policy before it stays in force. The file is watched on a thread of its own,
    in every forked child too. Needs the extra ``policy``.

    Args:
        authorizer: the one that decides by the policy.
        files: the policy's, and all others that ``load`` reads.
        load: makes the policy; by default :meth:`authz.Policy.from_file` of the one file.
        shadow: the file of a policy on trial.

    Attributes:
        is_failing: whether a file, as it is now, cannot be used.

    Raises:
        ConfigError: the extra is not installed; or at the beginning of the block, a file cannot be used.

    """

    def __init__(
        self,
        authorizer: Authorizer,
        *files: str | os.PathLike[str],
        load: Callable[[], Policy] | None = None,
        shadow: str | os.PathLike[str] | None = None,
    ) -> None:
        if load is None and len(files) > 1:
            raise ConfigError("files: a policy is one file; say in load how it is made of several")
        sources = []
        if files:
            load = load or partial(Policy.from_file, files[0])
            sources.append(Source("policy", Files(files), _loading(load, authorizer.replace_policy)))
        if shadow is not None:
            loading = _loading(partial(Policy.from_file, shadow), authorizer.replace_shadow)
            sources.append(Source("shadow", Files([shadow]), loading))
        super().__init__(sources, clock=authorizer.verifier.clock)

    def __enter__(self) -> Self:
        for files, source in self._sources.items():
            while not source.reload():
                files.have_changed()
        return super().__enter__()


def _loading(load: Callable[[], Policy], replace: Callable[[Policy], object]) -> Load:
    def loading() -> tuple[Policy, Callable[[], object]]:
        policy = load()
        return policy, partial(replace, policy)

    return loading
