"""The settings in force, as a pod's variables, files and secrets; or why it cannot have them.

Every setting is in exactly one of the groups below; one that is in none is an error, because a pod that lacks a setting
may admit callers that this server refuses.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from authz.errors import ConfigError
from authz.issuer.keys import public_jwks
from authz.policy.configured import policy_of, shadow_of
from authz.runtime.network.urls import check_url
from authz.settings.environment import may_hold_secret
from authz.settings.settings import Settings
from authz.settings.variables import PREFIX

FILES_FOLDER = "/etc/authz/files"
SECRETS_FOLDER = "/etc/authz/secrets"
TLS_FOLDER = "/etc/authz/tls"

MAX_FILES_BYTES = 1 << 20
"""The most that Kubernetes accepts in one ConfigMap, all files together."""


@dataclass(frozen=True)
class Pod:
    """The settings of a pod.

    Args:
        variables: settings, by name.
        secrets: settings that are read from a Secret, with their keys in it.
        files: contents of files that are mounted in :data:`FILES_FOLDER`.
        secret_files: keys of that Secret that are mounted in :data:`SECRETS_FOLDER`.
        left_out: settings that have no use in a pod, and why.

    """

    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    secret_files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def has_tls(self) -> bool:
        """Whether the server has a certificate."""
        return "tls_cert_file" in self.variables

    def refer(self, setting: str) -> None:
        """Have ``setting`` read from the Secret."""
        self.secrets[setting] = setting.replace("_", "-")


def pod_of(settings: Settings) -> Pod:
    """Return ``settings`` as those of a pod.

    Raises:
        ConfigError: a setting cannot be used there, and leaving it out would open the server; or a file cannot be read,
            holds secrets, or is too large.

    """
    pod = Pod()
    # Loaded here, so that mistakes show now and not in the log of a pod.
    policies, listed = (policy_of(settings), shadow_of(settings)), settings.listed()
    for name in sorted(settings.model_fields_set):
        value = listed.document.data if name == "issuers" and listed is not None else getattr(settings, name)
        if value not in (None, "", []):
            GROUPS.get(name, _unknown)(pod, name, value)
    is_asked = settings.introspect_max_age is not None or any(policy and policy.has_assurances for policy in policies)
    if is_asked and listed is None:
        pod.refer("introspection_client_secret")
    if ("tls_cert_file" in pod.variables) is not ("tls_key_file" in pod.variables):
        raise ConfigError("tls_cert_file: a certificate and its key belong together; set AUTHZ_TLS_KEY_FILE, too")
    if any(address.startswith("tls:") for address in settings.listen) and not pod.has_tls:
        raise ConfigError("tls_cert_file: missing; an address with tls: needs a certificate")
    if "tls_client_ca_file" in pod.variables and not pod.has_tls:
        raise ConfigError("tls_cert_file: missing; tls_client_ca_file is for addresses with tls:")
    _check_size(pod.files)
    return pod


def _printed(pod: Pod, name: str, value: Any) -> None:
    text = _text(name, value)
    if may_hold_secret(text):
        pod.refer(name)
    else:
        pod.variables[name] = text


def _url(pod: Pod, name: str, url: str) -> None:
    _printed(pod, name, check_url(url, name))


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        if any("," in str(part) for part in value):
            raise ConfigError(f"{name}: a part with a comma cannot be printed, because commas separate parts")
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret(pod: Pod, name: str, _value: Any) -> None:
    pod.refer(name.removesuffix("_file"))


def _secret_file(pod: Pod, name: str, _path: str) -> None:
    key = name.removesuffix("_file").replace("_", "-")
    pod.secret_files.append(key)
    pod.variables[name] = f"{SECRETS_FOLDER}/{key}"


def _policy(pod: Pod, name: str, path: str) -> None:
    # The suffix decides how it is read.
    _file(pod, name, path, f"{name}.json" if path.endswith(".json") else f"{name}.yaml")


def _file(pod: Pod, name: str, path: str, key: str) -> None:
    _mount(pod, name, key, _content(name, path))


def _certificates(pod: Pod, name: str, path: str, key: str) -> None:
    content = _content(name, path)
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{name}: {path!a} has a private key, which is not printed; give a file of certificates only")
    _mount(pod, name, key, content)


def _keys(pod: Pod, name: str, jwks: str, key: str) -> None:
    _mount(pod, name, key, public_jwks(jwks, name).encode())


def _issuers(pod: Pod, name: str, listed: Any) -> None:
    data = copy.deepcopy(listed)
    for number, entry in enumerate(data["issuers"], 1):
        for keys in ("jwks", "jwks_seed"):
            if entry.get(keys):
                entry[keys] = public_jwks(entry[keys], keys)
        for url in ("issuer", "jwks_url", "introspection_url"):
            if entry.get(url) and may_hold_secret(check_url(entry[url], url)):
                raise ConfigError(
                    f"{name}: {url} of issuer {number} has a query, which may be a secret; set it by hand"
                )
        if entry.get("introspection_client_secret_file"):
            key = f"introspection-client-secret-{number}"
            entry["introspection_client_secret_file"] = f"{SECRETS_FOLDER}/{key}"
            pod.secret_files.append(key)
    _mount(pod, name, "issuers.json", json.dumps(data, indent=2).encode())


def _mount(pod: Pod, name: str, key: str, content: bytes) -> None:
    pod.files[key] = content
    pod.variables[name] = f"{FILES_FOLDER}/{key}"


def _content(name: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            # One byte more than allowed, to notice a file that is too large; not all, because it may be endless.
            return file.read(MAX_FILES_BYTES + 1)
    except OSError:
        raise ConfigError(f"{name}: {path!a} cannot be read") from None


def _tls(pod: Pod, name: str, _path: str, key: str) -> None:
    pod.variables[name] = f"{TLS_FOLDER}/{key}"


def _engine(pod: Pod, name: str, engine: str) -> None:
    if engine == "native":
        raise ConfigError(
            "engine: native serves no other pods; set grpcio, or run it in Envoy's pod (deploy/kubernetes/sidecar)"
        )
    pod.variables[name] = engine


def _admin(pod: Pod, name: str, address: str) -> None:
    pod.variables[name] = f"127.0.0.1:{address.rpartition(':')[2]}"


def _left_out(pod: Pod, name: str, _value: Any, why: str) -> None:
    pod.left_out[name] = why


def _replaced(_pod: Pod, _name: str, _value: Any) -> None:
    """Do nothing: the manifests set where the server listens."""


def _unknown(_pod: Pod, name: str, _value: Any) -> None:
    raise ConfigError(
        f"{name}: cannot be printed for Kubernetes; unset {PREFIX}{name.upper()}, and set it there by hand"
    )


def _check_size(files: Mapping[str, bytes]) -> None:
    size = sum(map(len, files.values()))
    if size > MAX_FILES_BYTES:
        largest = max(files, key=lambda key: len(files[key]))
        raise ConfigError(
            f"{largest}: with it the files have more than {MAX_FILES_BYTES} bytes, too many for a ConfigMap"
        )


GROUPS: Mapping[str, Callable[[Pod, str, Any], None]] = {
    # Settings that are complete as values. One that names a file, an address or a secret belongs to another group.
    **dict.fromkeys(
        (
            "algorithms",
            "allow_missing_kid",
            "allow_user_tokens",
            "audience",
            "client_id_claim",
            "decision_log",
            "discover",
            "discover_hosts",
            "drain",
            "end_streams",
            "grace",
            "introspect_if_unavailable",
            "introspect_max_age",
            "introspection_auth_method",
            "introspection_client_id",
            "isolation",
            "jwt_authn_payload",
            "leeway",
            "log_format",
            "log_level",
            "max_lifetime",
            "max_pending",
            "token_memory",
            "org_id_claim",
            "org_id_pattern",
            "proxy_from_env",
            "public_methods",
            "quota_if_unavailable",
            "quota_store",
            "realm",
            "reflection",
            "remove_authorization",
            "require_at_jwt",
            "store",
            "store_namespace",
            "store_plaintext",
            "store_region",
            "store_stale",
            "store_username",
            "token_profile",
            "unknown_organizations",
            "usage_days",
            "usage_metrics_by_organization",
            "worker_timeout",
            "workers",
            "workos_events",
            "workos_events_interval",
            "workos_applications",
            "workos_applications_interval",
            "workos_groups_key",
        ),
        _printed,
    ),
    **dict.fromkeys(("introspection_url", "issuer", "jwks_url", "resource_metadata", "workos_base_url"), _url),
    **dict.fromkeys(
        (
            "admin_secret",
            "admin_secret_file",
            "introspection_client_secret",
            "introspection_client_secret_file",
            "workos_api_key",
            "workos_api_key_file",
        ),
        _secret,
    ),
    **dict.fromkeys(("store_cert_file", "store_key_file", "store_password_file"), _secret_file),
    "issuers": _issuers,
    "policy": _policy,
    "shadow": _policy,
    "descriptors": partial(_file, key="descriptors.binpb"),
    "ca_file": partial(_certificates, key="ca.pem"),
    "store_ca_file": partial(_certificates, key="store-ca.pem"),
    "tls_client_ca_file": partial(_certificates, key="client-ca.pem"),
    "jwks": partial(_keys, key="jwks.json"),
    "jwks_seed": partial(_keys, key="jwks-seed.json"),
    "tls_cert_file": partial(_tls, key="tls.crt"),
    "tls_key_file": partial(_tls, key="tls.key"),
    "engine": _engine,
    "admin": _admin,
    "listen": _replaced,
    "http_listen": _replaced,
    "admin_allow_remote": partial(_left_out, why="the page listens on the pod's loopback, for kubectl port-forward"),
    "audit_listen": partial(
        _left_out, why="decisions are watched on the same machine, and a pod has no program for that"
    ),
    "access_log_listen": partial(_left_out, why="Envoy repeats no answers of servers in other pods"),
    **dict.fromkeys(
        ("forward_auth", "forward_auth_headers"),
        partial(_left_out, why="the manifests are for Envoy; other proxies ask a server next to them"),
    ),
    "decision_log_file": partial(_left_out, why="a pod keeps no files; decisions go to standard output"),
    **dict.fromkeys(
        ("remember", "xds"),
        partial(_left_out, why="Envoy asks several pods here, and would forget what all others than one have said"),
    ),
    **dict.fromkeys(
        ("workos_webhooks", "workos_webhook_secret", "workos_webhook_secret_file"),
        partial(_left_out, why="webhooks come from the Internet, and the manifests let only Envoys in"),
    ),
    "orders": partial(_left_out, why="a pod keeps no files; what is to outlive it, and reach every pod, needs a store"),
    **dict.fromkeys(("config", "env_file"), partial(_left_out, why="its settings are printed here")),
    "socket_mode": partial(_left_out, why="there is no Unix socket; the NetworkPolicy says who may ask"),
    "socket_owner": partial(_left_out, why="there is no Unix socket; the NetworkPolicy says who may ask"),
}
"""What to do with each setting."""
