"""Write the names of settings into the chart's schema: ``python -m tests.settings.chart FILE`` (``make settings``)."""

import json
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr

from authz.settings.settings import Settings

# What the chart sets by itself, from values of its own; and what has no meaning in a pod of it.
OF_THE_CHART = {
    *("issuer", "audience", "listen", "http_listen", "tls_cert_file", "tls_key_file", "tls_client_ca_file"),
    *("drain", "grace", "policy", "introspect_max_age", "introspection_client_id", "introspection_client_secret_file"),
    *("store", "store_username", "store_password_file", "store_ca_file"),
    *("config", "env_file", "socket_mode", "socket_owner", "workers", "worker_timeout"),
}


def names() -> list[str]:
    """Return the settings that users of the chart may give by name: no secret, which would be in a ConfigMap."""
    secrets = {name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)}
    return sorted(Settings.model_fields.keys() - secrets - OF_THE_CHART)


def schema(text: str) -> str:
    """Return the chart's schema with the names of today."""
    found: dict[str, Any] = json.loads(text)
    found["properties"]["settings"]["propertyNames"]["enum"] = names()
    return json.dumps(found, indent=2) + "\n"


def main(path: Path) -> None:
    """Write the names into the file."""
    path.write_text(schema(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
