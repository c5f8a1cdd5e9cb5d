"""Run the benchmarks, print their figures and write ``benchmarks/latest.json``.

``python -m benchmarks tokens`` runs one benchmark and writes nothing.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.tree import Tree

from authz.demo import children
from benchmarks import (
    access_log,
    endings,
    ext_authz,
    forward_auth,
    http,
    imports,
    interceptors,
    isolation,
    onlookers,
    orders,
    policy,
    quotas,
    reload,
    remembered,
    rules,
    tokens,
)

BENCHMARKS: dict[str, Callable[[], Mapping[str, object]]] = {
    "import": imports.measure,
    "tokens": tokens.measure,
    "interceptors": interceptors.measure,
    "endings": endings.measure,
    "http": http.measure,
    "policy": policy.measure,
    "rules": rules.measure,
    "reload": reload.measure,
    "isolation": isolation.measure,
    "ext_authz": ext_authz.measure,
    "forward_auth": forward_auth.measure,
    "access_log": access_log.measure,
    "remembered": remembered.measure,
    "onlookers": onlookers.measure,
    "orders": orders.measure,
    "quotas": quotas.measure,
}
PACKAGES = (
    "grpcio",
    "protobuf",
    "jwcrypto",
    "cryptography",
    "cachetools",
    "fastapi",
    "starlette",
    "pyjwt",
    "joserfc",
    "authlib",
)


def main(arguments: list[str]) -> None:
    """Run the benchmarks that ``arguments`` name, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHMARKS)}")
    names: list[str] = parser.parse_args(arguments).names
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!a}; there are {', '.join(BENCHMARKS)}")
    report: dict[str, object] = {
        "python": platform.python_version(),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in PACKAGES},
    }
    for name in names or BENCHMARKS:
        report[name] = BENCHMARKS[name]()
    if not names:
        text = json.dumps(report, indent=2) + "\n"
        Path(__file__).with_name("latest.json").write_text(text, encoding="utf-8")
    console = Console(highlight=False)
    console.print(_tree("CPU time, medians; figures of one run, measured in turn", report))


def _tree(name: str, figures: Mapping[str, object]) -> Tree:
    tree = Tree(f"[b]{name}[/b]")
    for key, value in figures.items():
        if isinstance(value, Mapping):
            tree.add(_tree(key, value))
        else:
            tree.add(f"{key}: {value}")
    return tree


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


os.environ.update(children.mark())
main(sys.argv[1:])
