"""What ``authz doctor`` can find wrong: a short name that stays, how bad it is, and what to do about it.

``docs/doctor.md`` has the same as a table.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Remedy(NamedTuple):
    """What to do about a fault of one kind.

    Args:
        level: how bad it usually is; ``skipped`` where something could not be looked at.
        meaning: what is wrong.
        text: what to do.

    """

    level: Literal["warning", "error", "skipped"]
    meaning: str
    text: str


_CA = "Name the PEM file of the authority that signed it: --ca-file or AUTHZ_CA_FILE"
_FILTER = "`authz envoy-config --format filter` prints the right parts"

REMEDIES: Mapping[str, Remedy] = {
    # ---- Settings ----
    "settings-invalid": Remedy(
        "error",
        "a setting is missing or cannot work, so `authz serve` does not start",
        "Change the setting that is named. `authz serve --help` and docs/settings.md say what it takes.",
    ),
    # ---- The issuer ----
    "issuer-unreachable": Remedy(
        "error",
        "no connection to the issuer",
        "Check --issuer for a typing error. Then try `curl -v` with it from this machine: name server, firewall, "
        "NetworkPolicy, or a proxy that needs --proxy-from-env.",
    ),
    "issuer-slow": Remedy(
        "error",
        "the issuer does not answer in time",
        "Check whether a firewall drops packets, and how busy the issuer is. `authz serve` waits 5 s.",
    ),
    "issuer-untrusted-certificate": Remedy(
        "error",
        "no authority that is trusted here has signed the issuer's certificate",
        f"{_CA}. If it should be a public one, some proxy on the way may replace certificates.",
    ),
    "issuer-certificate-expired": Remedy(
        "error",
        "the issuer's certificate has expired, or is not valid yet",
        "Have the issuer's operator renew it. If it looks valid, set the clock of this machine.",
    ),
    "issuer-certificate-host": Remedy(
        "error",
        "the issuer's certificate is for another host name",
        "Write --issuer with a name that stands in the certificate, or have the issuer's operator add this one.",
    ),
    "issuer-tls": Remedy(
        "error",
        "the TLS handshake with the issuer fails",
        "Check that the port is for https, and that both sides have a version of TLS in common (1.2 or newer).",
    ),
    "issuer-proxy": Remedy(
        "error",
        "the proxy of the environment does not let the request through",
        "Check HTTPS_PROXY and NO_PROXY, or leave out --proxy-from-env.",
    ),
    "issuer-mismatch": Remedy(
        "error",
        "the metadata is another issuer's, so tokens would name another issuer than is configured",
        "Set --issuer (AUTHZ_ISSUER) to exactly what was found, if that is the issuer you mean: scheme, host and "
        "final slash count.",
    ),
    "metadata-missing": Remedy(
        "warning",
        "the issuer publishes no metadata (RFC 8414); with --discover that is an error",
        "Check that --issuer is an issuer and not a page. One without metadata needs --jwks-url, and no --discover.",
    ),
    "clock-skew": Remedy(
        "warning",
        "the clocks here and at the issuer, or the store, differ by more than the leeway; an error above 60 s",
        "Synchronize the clock of this machine (`timedatectl`, chrony). More --leeway only hides it.",
    ),
    "keys-unavailable": Remedy(
        "error",
        "the issuer's keys cannot be fetched",
        "Give the URL of the JWK Set with --jwks-url, or have it looked up with --discover; "
        "open the URL that is named with `curl -v`.",
    ),
    "keys-none-usable": Remedy(
        "error",
        "the key set has no key that can verify a signature by an allowed algorithm",
        "Allow the algorithm that the issuer signs with (--algorithms), or have the issuer publish such a key. "
        "A set of your own (--jwks) must be a JWK Set of public keys.",
    ),
    # ---- A token, and the issuer's word about it ----
    "token-refused": Remedy(
        "error",
        "the issuer refuses a token to this application",
        "Check --client-id, AUTHZ_CLIENT_SECRET or --client-secret-file, and whether the application has the scopes, "
        "audience and resource that are asked for.",
    ),
    "token-unavailable": Remedy(
        "error",
        "the token endpoint gives no token",
        "Check AUTHZ_TOKEN_URL, or --issuer, where the endpoint is looked for. `authz token` tries it alone.",
    ),
    "token-wrong-audience": Remedy(
        "error",
        "the token is for another audience",
        "Set --audience (AUTHZ_AUDIENCE) to the aud that was found, if that is this API; with WorkOS it is the client "
        "ID of the environment. Else have the caller ask for the audience that was expected.",
    ),
    "token-wrong-issuer": Remedy(
        "error",
        "the token is from another issuer",
        "Set --issuer (AUTHZ_ISSUER) to the iss that was found, if you trust that issuer: scheme, host and final slash "
        "count. Else use a token of the configured one.",
    ),
    "token-no-organization": Remedy(
        "error",
        "the token names no organization, or one that does not match --org-id-pattern",
        "Create the application in an organization (with WorkOS an M2M application of Connect). If the issuer names it "
        "in another claim, set --org-id-claim; if its ids look different, --org-id-pattern.",
    ),
    "token-expired": Remedy(
        "error",
        "the token has expired",
        "Get a fresh one (`authz token`); if it is fresh, compare the clocks.",
    ),
    "token-invalid": Remedy(
        "error",
        "the token is refused for another reason",
        "`authz verify` with the same settings explains every part of the token.",
    ),
    "token-undecided": Remedy(
        "skipped",
        "the token cannot be verified, because the keys cannot be had now",
        "Put right what is said about the issuer and its keys first.",
    ),
    "introspection-wrong-secret": Remedy(
        "error",
        "the issuer refuses our own credentials, so it cannot be asked about tokens",
        "Check --introspection-client-id, and the secret in AUTHZ_INTROSPECTION_CLIENT_SECRET or "
        "--introspection-client-secret-file; the issuer may want --introspection-auth-method client_secret_basic.",
    ),
    "introspection-unavailable": Remedy(
        "error",
        "the introspection endpoint gives no answer that can be used",
        "Give its URL with --introspection-url, or have it looked up with --discover.",
    ),
    "introspection-inactive": Remedy(
        "error",
        "the issuer says that a good token is not active, so every call would be refused",
        "Check whose credentials are used: some issuers speak only of tokens of the same environment. "
        "Or the token was withdrawn.",
    ),
    # ---- The policy ----
    "policy-none": Remedy(
        "warning",
        "there is no policy: every good token may call everything",
        "Say who may call what in a file: --policy (docs/policy.md).",
    ),
    "policy-invalid": Remedy(
        "error",
        "the policy cannot be loaded",
        "Correct the line that is named; `authz policy check FILE` checks it alone.",
    ),
    "policy-allows-no-caller": Remedy(
        "error",
        "no caller is allowed anything",
        "Write an allow rule that can match a call; `authz policy explain` says of one call what it does not meet.",
    ),
    "policy-rule-never-matches": Remedy(
        "warning",
        "a rule can match no call",
        "Correct the rule, or remove it.",
    ),
    # ---- Envoy ----
    "envoy-unreadable": Remedy(
        "skipped",
        "Envoy's configuration cannot be read",
        "Give Envoy's own configuration as YAML or JSON, or --envoy-admin HOST:PORT of a running Envoy. For manifests "
        "of Kubernetes, ask the Envoy that was configured by them.",
    ),
    "envoy-asks-nothing": Remedy(
        "error",
        "a connection manager has no ext_authz filter in force, so its requests go unchecked; a warning where another "
        "one has it",
        f"Put the filter first among http_filters; {_FILTER}.",
    ),
    "envoy-asks-elsewhere": Remedy(
        "error",
        "the filter asks another server than this one",
        "Make the cluster's endpoint what was expected, or change --listen.",
    ),
    "envoy-http-service": Remedy(
        "error",
        "the filter asks over HTTP where only gRPC is answered",
        "Replace http_service by grpc_service, or listen for HTTP with --forward-auth.",
    ),
    "envoy-fails-open": Remedy(
        "error",
        "some requests pass without a decision",
        "Set failure_mode_allow: false, and remove shadow_mode and filter_enabled: no call may pass undecided.",
    ),
    "envoy-names-kept": Remedy(
        "warning",
        "headers that the backend trusts are not removed from requests before they are routed; an error where a route "
        "is not checked",
        f"Remove them with early_header_mutation_extensions; {_FILTER}.",
    ),
    "envoy-names-lost": Remedy(
        "error",
        "the trusted headers do not reach the backend",
        "Do not remove them on a route, which happens after the check; let decoder_header_mutation_rules and "
        "allowed_upstream_headers name them.",
    ),
    "envoy-token-withheld": Remedy(
        "error",
        "the header authorization is not sent to the authorization server, so every call is refused",
        "Remove allowed_headers and disallowed_headers, or let them pass authorization and what your policy reads.",
    ),
    "envoy-route-unchecked": Remedy(
        "warning",
        "a route turns the check off",
        "Remove disabled: true there. A method that needs no token belongs in --public-methods, where its trusted "
        "headers are still removed.",
    ),
    "envoy-not-http2": Remedy(
        "error",
        "the cluster does not speak HTTP/2, which gRPC needs",
        "Give the cluster typed_extension_protocol_options with explicit_http_config: {http2_protocol_options: {}}.",
    ),
    "envoy-tls": Remedy(
        "error",
        "only one of Envoy and this server uses TLS between them, or Envoy shows no certificate",
        "Listen on tls:HOST:PORT and give the cluster a transport_socket, or neither; "
        "`authz envoy-config --authz tls:HOST:PORT` prints it.",
    ),
    "envoy-timeout": Remedy(
        "warning",
        "the timeout of the check is short, or long",
        "Set grpc_service.timeout: 1s. By default it is 0.2 s, which is short for the first check after new keys.",
    ),
    "envoy-hides-outages": Remedy(
        "warning",
        "while this server is down, callers are told that they are forbidden",
        "Set status_on_error: {code: ServiceUnavailable}.",
    ),
    "envoy-trusts-answers": Remedy(
        "warning",
        "Envoy does not check the headers of answers",
        "Set validate_mutations: true.",
    ),
    "envoy-holds-streams": Remedy(
        "warning",
        "Envoy holds requests back until they are complete, which stops gRPC streams",
        "Remove with_request_body, or set disable_request_body_buffering on routes with streams.",
    ),
    "envoy-paths": Remedy(
        "warning",
        "a path can be spelled in several ways, of which Envoy checks one and the backend may serve another",
        "Set normalize_path and merge_slashes to true, and path_with_escaped_slashes_action to UNESCAPE_AND_REDIRECT.",
    ),
    # ---- Here ----
    "listen-in-use": Remedy(
        "error",
        "another program listens at the address",
        "End that program, or choose another port or path.",
    ),
    "listen-impossible": Remedy(
        "error",
        "the address cannot be bound",
        "Choose an address of this machine, a port that this user may bind (1024 or above), and for unix:PATH a folder "
        "that it may write to and a path of at most 107 bytes.",
    ),
    "certificate-expired": Remedy(
        "error",
        "our own certificate has expired, or is not valid yet",
        "Renew the file that tls_cert_file names; a running server reads it again.",
    ),
    "certificate-expires": Remedy(
        "warning",
        "our own certificate expires within 14 days",
        "Renew the file that tls_cert_file names; a running server reads it again.",
    ),
    "certificate-unusable": Remedy(
        "error",
        "our own certificate or its key cannot be used",
        "Set --tls-cert-file to a PEM file with the certificate first, and --tls-key-file to its key, not encrypted, "
        "readable by this user.",
    ),
    "server-not-serving": Remedy(
        "error",
        "a server listens, and says that it cannot decide",
        "Put right what is said about the issuer and the store; the server's log names the reason.",
    ),
    # ---- The store ----
    "store-unavailable": Remedy(
        "error",
        "the store cannot be used",
        "Put right what was found. Until then replicas share no orders, and a new one has none.",
    ),
    "store-denied": Remedy(
        "error",
        "the store refuses the user, the password or a command",
        "Check --store-username, --store-password-file, and what the store's ACL allows that user.",
    ),
    "store-unfit": Remedy(
        "error",
        "the store is too old, or may throw orders away",
        "Run Valkey, or Redis 7.0 or newer, with maxmemory-policy noeviction.",
    ),
    "store-not-durable": Remedy(
        "warning",
        "the store keeps nothing on disk, so that orders are lost if it and every replica are lost at once",
        "Start it with `appendonly yes`, or copy the orders with `authz orders export` every hour.",
    ),
    "store-read-only": Remedy(
        "error",
        "events of WorkOS are followed, and the user of the store may not make orders of them",
        "Give servers that follow WorkOS the user `authz-source` (--store-username; docs/fleet.md).",
    ),
    # ---- WorkOS ----
    "workos-key-refused": Remedy(
        "error",
        "WorkOS refuses the API key",
        "Check --workos-api-key-file or AUTHZ_WORKOS_API_KEY: whether the key was revoked, and is of this environment.",
    ),
    "workos-unavailable": Remedy(
        "error",
        "WorkOS gives no answer that can be used",
        "Check --workos-base-url, and whether this machine reaches it by https: firewall, NetworkPolicy, or a proxy "
        "that needs --proxy-from-env.",
    ),
    "webhooks-unusable": Remedy(
        "error",
        "webhooks of WorkOS cannot be taken: the secret is missing or too short, or the address is none",
        "Put the secret that WorkOS shows for the webhook into --workos-webhook-secret-file, give --workos-webhooks as "
        "HOST:PORT, and follow events (--workos-events).",
    ),
    "webhooks-without-tls": Remedy(
        "warning",
        "the port for webhooks can be reached by other machines, and has no TLS",
        "Listen on loopback, or in a private network, behind a proxy that ends TLS; WorkOS posts to https only. What "
        "is not signed has no effect, but others may read who your organizations are.",
    ),
    # ---- The doctor itself ----
    "unforeseen": Remedy(
        "skipped",
        "the check itself failed",
        "Please report it, with the line that is named.",
    ),
}
