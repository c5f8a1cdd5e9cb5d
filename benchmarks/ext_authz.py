"""CPU time of the ext_authz server per check, beside a server that answers the same without looking."""

from benchmarks.loads import Load, compare, unary_aio
from benchmarks.material import check_request, claims, signing_key
from benchmarks.server import CHECK


def measure() -> dict[str, object]:
    """Return CPU microseconds per check of each server, and the ratios."""
    request = check_request(signing_key().sign(claims()))
    load = Load(unary_aio, CHECK, request=request, calls=4000)
    return {
        "grpcio": compare("ext_authz", "constant", load, of_client=False),
        "native": compare("native", "native-constant", load, of_client=False),
        "native beside grpcio": compare("native", "ext_authz", load, of_client=False),
    }
