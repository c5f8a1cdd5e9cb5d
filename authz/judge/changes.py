"""When something has taken effect that may turn a yes into a no, so that a yes that was given before may be over."""

from collections.abc import Callable

from authz.runtime import telemetry


class Changes:
    """Tell those who repeat what the judge has said.

    Noted are another policy, another isolation, orders of the operator, doubt about them, and keys that an issuer has
    withdrawn: all that a yes of :class:`authz.judge.lasting.Lasting` depends on, but for the time.

    Attributes:
        count: how many there were.

    """

    def __init__(self) -> None:
        self.count = 0
        self._watching: tuple[Callable[[], object], ...] = ()

    def watch(self, tell: Callable[[], object]) -> None:
        """Have ``tell`` called after each change, on the thread that made it; it must not wait."""
        self._watching = (*self._watching, tell)

    def note(self, *_: object) -> None:
        """Note a change; call this once it is in force for every call that begins from now on."""
        # Two threads may count one change between them: each tells that there was one.
        self.count += 1
        for tell in self._watching:
            try:
                tell()
            except Exception as error:  # noqa: BLE001 - what has changed is in force
                telemetry.unforeseen("changes", error)
