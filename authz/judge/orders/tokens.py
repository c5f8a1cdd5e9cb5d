"""Revoked tokens, of which there may be a million; none is forgotten before the hour in which it ends."""

from collections.abc import Iterable, Iterator

MAX_TOKENS = 4_000_000
"""Beyond so many, which take about 500 MB, no new order to revoke one is taken; but one about its client is."""

_HOUR = 3600


def member(token_id: str, issuer: str = "") -> str:
    """Return the name under which a token is listed; an issuer is a URL, and has no space."""
    return f"{issuer} {token_id}"


class RevokedTokens:
    """The revoked tokens and when they end. One thread at a time may change it; any number may read.

    Attributes:
        has_issuers: whether a token of one issuer only has ever been listed.

    """

    def __init__(self) -> None:
        # The hour, in POSIX time, at whose end a token has ended; and which tokens end in an hour.
        self._hours: dict[str, int] = {}
        self._by_hour: dict[int, list[str]] = {}
        # One number for all tokens of an hour: a million would take 32 MB.
        self._same: dict[int, int] = {}
        self.has_issuers = False

    def __len__(self) -> int:
        """Return how many are listed."""
        return len(self._hours)

    def __contains__(self, name: str) -> bool:
        """Say whether the token is listed under this name, see :func:`member`."""
        return name in self._hours

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield each name with a POSIX time at which the token has ended; what comes meanwhile may be left out."""
        # The names are copied in one step, for another thread may change the list.
        for name in list(self._hours):
            hour = self._hours.get(name)
            if hour is not None:
                yield name, (hour + 1) * _HOUR

    def add(self, tokens: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
        """List tokens, each with the POSIX time of its end; return those that were not, or not for so long."""
        # There may be a million: what the loop looks up is looked up once.
        hours, by_hour, same, added = self._hours, self._by_hour, self._same, []
        for token in tokens:
            name, end = token
            # The end of an hour belongs to that hour.
            hour = -int(-end // _HOUR) - 1
            before = hours.get(name)
            if before is not None and before >= hour:
                continue
            if hour not in same:
                same[hour], by_hour[hour] = hour, []
            by_hour[hour].append(name)
            hours[name] = same[hour]
            added.append(token)
        self.has_issuers = self.has_issuers or any(name[0] != " " for name, _ in added)
        return added

    def remove(self, name: str) -> None:
        """Take a token from the list, if it is there."""
        self._hours.pop(name, None)

    def forget(self, now: float) -> None:
        """Forget those that have ended at ``now``, in POSIX seconds."""
        for hour in [hour for hour in self._by_hour if (hour + 1) * _HOUR <= now]:
            self._same.pop(hour)
            for name in self._by_hour.pop(hour):
                # It may have been listed again with a later end.
                if self._hours.get(name) == hour:
                    del self._hours[name]
