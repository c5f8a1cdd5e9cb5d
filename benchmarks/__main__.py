"""Run the benchmarks, print their figures, and write the page ``build/bench/index.html``.

``python -m benchmarks tokens`` runs one of them. All together are kept in ``benchmarks/latest.json``, and drawn in
``docs/pictures/speed.svg``; so are those that are named, with ``--keep``.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.tree import Tree

from authz.demo import children
from benchmarks import (
    access_log,
    counts,
    distinct,
    document,
    endings,
    ext_authz,
    forward_auth,
    http,
    imports,
    interceptors,
    isolation,
    onlookers,
    orders,
    organizations,
    page,
    policy,
    quotas,
    reload,
    remembered,
    report,
    rules,
    streams,
    tokens,
)
from benchmarks.missing import MissingError
from benchmarks.peers import comparison
from benchmarks.peers.commands import named

BENCHMARKS: dict[str, Callable[[], Mapping[str, object]]] = {
    "import": imports.measure,
    "tokens": tokens.measure,
    "distinct": distinct.measure,
    "interceptors": interceptors.measure,
    "streams": streams.measure,
    "endings": endings.measure,
    "http": http.measure,
    "policy": policy.measure,
    "rules": rules.measure,
    "reload": reload.measure,
    "organizations": organizations.measure,
    "isolation": isolation.measure,
    "ext_authz": ext_authz.measure,
    "forward_auth": forward_auth.measure,
    "access_log": access_log.measure,
    "remembered": remembered.measure,
    "onlookers": onlookers.measure,
    "orders": orders.measure,
    "quotas": quotas.measure,
    "peers": comparison.measure,
    "counts": counts.measure,
}


def main(arguments: list[str]) -> None:
    """Run the benchmarks that ``arguments`` name, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--peer",
        action="append",
        type=named,
        default=[],
        metavar="NAME=COMMAND",
        help="compare ours with an ext_authz server that the command starts at {address}, without TLS; {jwks}, "
        "{issuer} and {audience} in it are the file of keys and what tokens must say. May be repeated; implies peers",
    )
    parser.add_argument("--keep", action="store_true", help="keep the figures of the parts that are named")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHMARKS)}")
    given = parser.parse_args(arguments)
    names: list[str] = [*given.names, *(["peers"] if given.peer and "peers" not in given.names else [])]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!a}; there are {', '.join(BENCHMARKS)}")
    called = [*comparison.NAMES, *(peer.name for peer in given.peer)]
    if taken := [name for name in called if called.count(name) > 1]:
        parser.error(f"two servers are called {taken[0]!a}")
    new = report.begun()
    for name in names or BENCHMARKS:
        began = time.monotonic()
        try:
            figures = comparison.measure(given.peer) if name == "peers" else BENCHMARKS[name]()
        except MissingError as error:
            figures = {"left out": str(error)}
        report.add(new, name, figures, time.monotonic() - began)
    Console(highlight=False).print(_tree("CPU time, medians; figures of one run, measured in turn", new))
    both = report.overlaid(report.kept(), new)
    page.write(both)
    if given.keep or not names:
        report.keep(both)
        page.draw(both)
        document.write(both)
    print(f"All of it as a page: {page.PAGE}")


def _tree(name: str, figures: Mapping[str, object]) -> Tree:
    tree = Tree(f"[b]{name}[/b]")
    for key, value in figures.items():
        if isinstance(value, Mapping):
            tree.add(_tree(key, value))
        else:
            tree.add(f"{key}: {value}")
    return tree


os.environ.update(children.mark())
main(sys.argv[1:])
