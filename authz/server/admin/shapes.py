"""The shapes of the answers of a worker: an answer of another shape is dropped, because a worker may be broken."""

from typing import Any

from authz.server.admin.backend import Json

_NUMBER = (int, float)
_TOTALS = {"allowed": int, "denied": int, "undecided": int, "failed": int}
_SHAPES: dict[str, Any] = {
    "decisions": {"decisions": [{"id": str, "time": _NUMBER}], "cursor": str},
    "overview": {
        "names": dict,
        "totals": _TOTALS,
        "pace": [[int]],
        "reasons": [{"reason": str, "count": int, "last": _NUMBER}],
        "organizations": [{"id": str, **_TOTALS, "last": _NUMBER, "clients": dict, "known": dict}],
        "workers": [{"number": int}],
    },
    "policy": {"policy": (str, type(None))},
    "explain": {},
    "suspends": {"by_policy": bool},
    "sample": {"decisions": [{"time": _NUMBER}], "left_out": int},
}
_POLICY = {
    "since": _NUMBER,
    "rules": [{"list": str, "name": str, "hits": int, "last": (int, float, type(None))}],
}


def makes_sense(what: str, answer: Json) -> bool:
    """Return whether ``answer`` has the shape of an answer to the question ``what``."""
    if not _fits(answer, _SHAPES[what]):
        return False
    if what == "overview":
        counts = [each["clients"].values() for each in answer["organizations"]]
        if not all(_fits(called, dict) and _fits([*called.values()], [str]) for called in answer["names"].values()):
            return False
        return all(len(each) == 3 for each in answer["pace"]) and all(  # noqa: PLR2004 - second, allowed, refused
            isinstance(count, int) for of_one in counts for count in of_one
        )
    return what != "policy" or answer["policy"] is None or _fits(answer, _POLICY)


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(name in value and _fits(value[name], shape[name]) for name in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    return isinstance(value, shape)
