"""Seed mistakes, one at a time, and check that the tests catch each: ``make mutants``.

Every mistake is a change to a copy of the tree, on which its tests must fail. A
mistake that they do not catch, or that no longer fits the code, is an error.
``python -m mutants stream`` tries those whose name contains the word.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from authz.demo import children
from mutants.mistakes import MISTAKES, ROOT, Mistake

# Exit codes of pytest: all passed, some failed.
_PASSED, _FAILED = 0, 1
_SECONDS = 300
_COPIED = ("authz", "grpc_org_authz", "interceptors", "tests", "protos", "pyproject.toml", "README.md")


def main(words: list[str]) -> int:
    """Try the mistakes whose name contains one of ``words``, or all; return how many were not caught."""
    chosen = [mistake for mistake in MISTAKES if not words or any(word in mistake.name for word in words)]
    selections = sorted({mistake.tests for mistake in chosen})
    print(f"{len(chosen)} mistakes, {len(selections)} selections of tests", flush=True)
    survivors = 0
    # Two at a time, because the tests wait for their servers more than they compute.
    with ThreadPoolExecutor(2) as pool:
        for selection, status in zip(selections, pool.map(_pass_without_mistakes, selections), strict=True):
            if status != _PASSED:
                print(f"FAIL without a mistake: {selection}", flush=True)
                return 1
        for mistake, verdict in zip(chosen, pool.map(_try, chosen), strict=True):
            survivors += verdict != "caught"
            print(f"{verdict:10} {mistake.name}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught")
    return survivors


def _pass_without_mistakes(tests: str) -> int:
    with _copy() as tree:
        return _run(tree, tests)


def _try(mistake: Mistake) -> str:
    with _copy() as tree:
        changed = tree / mistake.file
        changed.write_text(mistake.made_in(changed.read_text(encoding="utf-8")), encoding="utf-8")
        return {_FAILED: "caught", _PASSED: "SURVIVED"}.get(_run(tree, mistake.tests), "BROKEN")


@contextmanager
def _copy() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, tree / name)
        yield tree


def _run(tree: Path, tests: str) -> int:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-cov", "--whole"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        # The working directory comes first in the path, before the installed package; and the copy also comes first
        # for programs that tests start in other folders.
        return subprocess.run(  # noqa: S603 - ours
            [*command, *shlex.split(tests)],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        # Several of the mistakes make a call hang.
        return _FAILED


os.environ.update(children.mark())
sys.exit(1 if main(sys.argv[1:]) else 0)
