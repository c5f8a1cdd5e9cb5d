"""Runs the hooks for pre-commit as a repository with policies does: ``make ci-hooks``."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from authz.runtime.text.schema import modeline

ROOT = Path(__file__).parents[2]
POLICY = f"{modeline('policy')}\nname: p\nallow_rules: [{{name: r, source: {{scopes: [read]}}}}]\n"
TESTS = "- {name: reads, method: /a.B/C, organization: org_a, scopes: [read], expect: allowed}\n"
# File, old and new text, and what the hooks must say then.
RUNS = (
    ("", "", "", ""),
    ("policies/orders-policy.yaml", "scopes", "scope", "policies/orders-policy.yaml:3: unknown key 'scope'"),
    ("policy.test.yaml", "[read]", "[write]", "policy.test.yaml:1: reads: expected allowed, is denied"),
)


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Apart from the settings and the hooks of the person who runs it.
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "PRE_COMMIT_HOME": str(folder.parent / "cache")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _configure(folder: Path) -> None:
    rev = _run(ROOT, "git", "rev-parse", "HEAD").stdout.strip()
    hooks = [{"id": "authz-policy-check"}, {"id": "authz-policy-test"}]
    config = {"repos": [{"repo": str(ROOT), "rev": rev, "hooks": hooks}]}
    (folder / ".pre-commit-config.yaml").write_text(json.dumps(config), encoding="utf-8")


def main() -> int:
    """Return 0 if the hooks pass what is good, and say what is wrong with everything else."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        (folder / "policies").mkdir(parents=True)
        _run(folder, "git", "init", "--quiet")
        _configure(folder)
        for file, old, new, said in RUNS:
            for name in ("policy", "policies/orders-policy"):
                (folder / f"{name}.yaml").write_text(POLICY, encoding="utf-8")
                (folder / f"{name}.test.yaml").write_text(TESTS, encoding="utf-8")
            if file:
                text = (folder / file).read_text(encoding="utf-8")
                (folder / file).write_text(text.replace(old, new), encoding="utf-8")
            _run(folder, "git", "add", "--all")
            done = _run(folder, str(ROOT / ".venv/bin/pre-commit"), "run", "--all-files")
            if (done.returncode != 0) != bool(said) or said not in done.stdout:
                print(done.stdout, done.stderr, file=sys.stderr)
                return 1
    print("The hooks pass good policies, and say what is wrong with others.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
