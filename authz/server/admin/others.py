"""The decisions of other replicas, beside those of this server."""

from authz.server.admin.backend import Json
from authz.server.shared_orders import SharedOrders


def with_others(told: Json, shared: SharedOrders | None) -> Json:
    """Return an answer of :meth:`authz.server.admin.backend.Source.decisions` with those of other replicas as well.

    Args:
        told: the answer, with decisions of this server only.
        shared: what shares them with other replicas, if anything does.

    """
    if shared is None or shared.sharing is None:
        return told
    others = shared.sharing.decisions.others()
    # Each by the clock of its replica.
    decisions = sorted([*told["decisions"], *others.decisions], key=_time)
    return {"decisions": decisions, "cursor": f"{told['cursor']},{others.cursor}"}


def _time(decision: Json) -> float:
    time: float = decision["time"]
    return time
