"""Every setting by its name, in the groups in which people read them."""

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Issuer": (
        *("issuer", "audience", "issuers", "discover", "discover_hosts", "jwks_url", "jwks", "jwks_seed"),
        *("ca_file", "proxy_from_env"),
    ),
    "Tokens": (
        *("token_profile", "org_id_claim", "org_id_pattern", "client_id_claim", "algorithms", "leeway", "max_lifetime"),
        *("allow_user_tokens", "allow_missing_kid", "require_at_jwt"),
    ),
    "Withdrawn tokens": (
        *("introspect_max_age", "introspect_if_unavailable", "introspection_client_id", "introspection_client_secret"),
        *("introspection_client_secret_file", "introspection_auth_method", "introspection_url"),
    ),
    "Policy": ("public_methods", "policy", "shadow", "descriptors", "isolation"),
    "Organizations": (
        *("workos_api_key", "workos_api_key_file", "workos_base_url", "workos_groups_key"),
        *("workos_events", "workos_events_interval"),
        *("workos_applications", "workos_applications_interval"),
        *("workos_webhooks", "workos_webhook_secret", "workos_webhook_secret_file", "unknown_organizations"),
    ),
    "Several replicas": (
        *("store", "store_username", "store_password_file", "store_ca_file", "store_cert_file", "store_key_file"),
        *("store_plaintext", "store_namespace", "store_region", "store_stale", "quota_store", "quota_if_unavailable"),
        *("usage_days",),
    ),
    "Answers": (
        *("realm", "resource_metadata", "remove_authorization", "end_streams", "jwt_authn_payload"),
        *("remember", "xds"),
    ),
    "Addresses": (
        *("listen", "tls_cert_file", "tls_key_file", "tls_client_ca_file", "socket_mode", "socket_owner"),
        *("engine", "reflection", "forward_auth", "forward_auth_headers"),
    ),
    "Orders of the operator": ("orders",),
    "Processes": ("workers", "worker_timeout", "max_pending", "token_memory", "drain", "grace"),
    "Logs, metrics and the admin page": (
        *(
            "log_level",
            "log_format",
            "decision_log",
            "decision_log_file",
            "audit_listen",
            "access_log_listen",
            "http_listen",
        ),
        *("usage_metrics_by_organization", "admin", "admin_allow_remote", "admin_secret", "admin_secret_file"),
    ),
    "Where settings come from": ("config", "env_file"),
}
"""The settings of a server, in the order in which an operator needs them; ``--help`` and docs/settings.md have it."""
