"""How much memory there is, and how much of it verified tokens may take."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from authz.errors import ConfigError

_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,9}) ?(KiB|MiB|GiB)", re.ASCII)
_ROOT = Path("/")

# Of what the container may use: the rest is for what is read, for calls that wait, and for Python itself.
_SHARE = 16
# Of each process: about 20,000 tokens. A full collection of garbage looks at all of them, and every check waits for it.
_MOST = 32 << 20


def token_memory_of(setting: str | None, workers: int, root: Path = _ROOT) -> int:
    """Return how many bytes the verified tokens of one process may take.

    Args:
        setting: of all processes together, such as ``64MiB``; ``None`` for a sixteenth of what the container may use,
            and at most 32 MiB of each process.
        workers: how many processes share it.
        root: where the files of the system begin.

    Raises:
        ConfigError: ``setting`` is not a size, or leaves a process less than 64 KiB.

    """
    if setting is None:
        return max(_UNITS["KiB"], min(container_memory(root) // _SHARE // workers, _MOST))
    found = _SIZE.fullmatch(setting)
    size = 0 if found is None else int(found[1]) * _UNITS[found[2]] // workers
    if size < 64 * _UNITS["KiB"]:
        raise ConfigError(
            f"token_memory: {setting!a} is not a number with KiB, MiB or GiB, such as 64MiB, of at least 64KiB for "
            "each worker"
        )
    return size


def container_memory(root: Path = _ROOT) -> int:
    """Return how many bytes of memory this process may use: the least limit of its control groups, or all there are.

    Args:
        root: where the files of the system begin.

    """
    return min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits(root))


def _limits(root: Path) -> Iterator[int]:
    # https://docs.kernel.org/admin-guide/cgroup-v2.html: a group is limited by all those above it as well. In a
    # container the path is often that outside of it, and its own group is at the top.
    groups = [("sys/fs/cgroup", "/", "memory.max"), ("sys/fs/cgroup/memory", "/", "memory.limit_in_bytes")]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            groups.append(("sys/fs/cgroup", path, "memory.max"))
        elif "memory" in controllers.split(","):
            groups.append(("sys/fs/cgroup/memory", path, "memory.limit_in_bytes"))
    for mount, path, name in groups:
        group = Path(path.lstrip("/"))
        for each in (group, *group.parents):
            limit = _text(root / mount / each / name).strip()
            # Version 2 says max where there is none, version 1 a number larger than any memory.
            if limit.isascii() and limit.isdecimal():
                yield int(limit)
    # Where no control group limits anything.
    yield _NO_LIMIT


_NO_LIMIT = 1 << 63


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
