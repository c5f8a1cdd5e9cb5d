"""What it costs a program to begin: CPU time and memory of an interpreter that imports one thing, and ends."""

import subprocess
import sys
from statistics import median

ROUNDS = 7

PROGRAMS = {
    "nothing": "",
    "import grpc": "import grpc",
    "from authz import ClientCredentials": "from authz import ClientCredentials",
    "from interceptors import bearer_interceptors": "from interceptors import bearer_interceptors",
    "import authz": "import authz",
    "import interceptors": "import interceptors",
}
BASE = "import grpc"

# Of the whole process: what an import leaves for later is not hidden, nor what loading the interpreter costs.
COSTS = """
import time
print(time.process_time(), *(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def measure() -> dict[str, object]:
    """Return milliseconds of CPU and MiB of memory of each program, measured in turn, and both as ratios."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for _ in range(ROUNDS):
        for name, program in PROGRAMS.items():
            found[name].append(_costs(program))
    milliseconds = {name: 1e3 * median(seconds for seconds, _ in each) for name, each in found.items()}
    memory = {name: median(kibibytes for _, kibibytes in each) / 1024 for name, each in found.items()}
    return {
        "cpu_ms": {name: round(value, 1) for name, value in milliseconds.items()},
        "cpu / import grpc": {name: round(value / milliseconds[BASE], 2) for name, value in milliseconds.items()},
        "peak_mib": {name: round(value, 1) for name, value in memory.items()},
        "peak / import grpc": {name: round(value / memory[BASE], 2) for name, value in memory.items()},
    }


def _costs(program: str) -> tuple[float, float]:
    # Isolated, so that neither the environment nor the folder decides what there is.
    command = [sys.executable, "-I", "-c", program + COSTS]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - the programs above
    seconds, kibibytes = done.stdout.split()
    return float(seconds), float(kibibytes)
