"""What the real Envoy says about a configuration."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authz.demo.envoy_binary import envoy_path


def validate(bootstrap: Mapping[str, Any] | str) -> None:
    """Fail unless Envoy accepts ``bootstrap``, as data or as text, without a deprecation warning."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "envoy.yaml")
        path.write_text(bootstrap if isinstance(bootstrap, str) else json.dumps(bootstrap), encoding="utf-8")
        done = subprocess.run(
            [envoy_path(), "--mode", "validate", "--log-level", "warn", "--config-path", path],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert (done.returncode, done.stdout.strip()) == (0, f"configuration '{path}' OK"), done.stderr
    assert "deprecated" not in done.stderr.lower()
