"""Settings, by one name everywhere: flag ``--jwks-url``, variable ``AUTHZ_JWKS_URL``, field ``jwks_url``.

A flag goes before a variable, a variable before the same line in the file that ``--env-file`` names, and that before
the file that ``--config`` names. Lists may be given as ``a,b`` in variables and by repeating the flag.
"""

from typing import Literal

from pydantic import Field, SecretStr

from authz.call.requirements import ACTIVE_SECONDS
from authz.errors import ConfigError
from authz.runtime.network.addresses import parse
from authz.settings.config_file import read_document
from authz.settings.issuer import IntrospectionSettings, IssuerSettings, Strings, needed_secret, secret_of
from authz.settings.issuers import Issuers, issuers_of
from authz.settings.store import StoreSettings

_MIN_ADMIN_SECRET = _MIN_WEBHOOK_SECRET = 16
# Each is compared with every webhook.
_MAX_WEBHOOK_SECRETS = 3


class VerifierSettings(IssuerSettings):
    """What decides which tokens are good."""

    issuers: str | None = Field(
        None,
        description="A file that lists several issuers, each with its audience, keys and organizations (YAML, TOML or "
        "JSON), instead of what is set of one; the file of config may list them itself.",
    )

    def listed(self) -> Issuers | None:
        """Read the file of issuers; return ``None`` if there is none.

        Raises:
            ConfigError: it cannot be read, or something in it is wrong; or a setting belongs into it.

        """
        if self.issuers is None:
            return None
        file = None if "issuers" in self._given else self._outside.in_config("issuers")
        document = None if file is None else file.issuers
        return issuers_of(read_document(self.issuers) if document is None else document, self)


class Settings(VerifierSettings, IntrospectionSettings, StoreSettings):
    """What an authorization server needs in addition."""

    listen: Strings = Field(
        ["127.0.0.1:9191"],
        min_length=1,
        description="HOST:PORT, tls:HOST:PORT or unix:PATH; may be given several times.",
    )
    tls_cert_file: str | None = Field(
        None, description="PEM file of the certificate for tls: addresses; read again when it changes."
    )
    tls_key_file: str | None = Field(None, description="PEM file of its private key.")
    tls_client_ca_file: str | None = Field(
        None, description="PEM file of the authorities of clients, which then must show a certificate (mutual TLS)."
    )
    socket_mode: str | None = Field(
        None, description="Octal permissions of Unix sockets, by default 0600, or 0660 if socket_owner names a group."
    )
    socket_owner: str | None = Field(None, description="user, user:group or :group to whom Unix sockets are given.")
    engine: Literal["grpcio", "native"] = Field(
        "grpcio", description="native takes a fifth of the CPU time, on loopback and Unix sockets only (extra native)."
    )
    reflection: bool = Field(default=False, description="Describe the services to clients such as grpcurl.")
    public_methods: Strings = Field([], description="Full method names or HTTP paths that need no token.")
    policy: str | None = Field(
        None,
        description="A file that says what each organization may do (YAML or JSON). By default everything, or what "
        "descriptors declare.",
    )
    shadow: str | None = Field(
        None,
        description="The file of a policy on trial, which has no say: where it would decide otherwise that is counted "
        "and logged.",
    )
    orders: str | None = Field(
        None,
        description="A file in which what the operator revokes and suspends is kept, so that it outlives a restart; of "
        "one server only. By default it ends with the server.",
    )
    remove_authorization: bool = Field(
        default=False, description="Have Envoy keep the token from the upstream, which must then believe Envoy."
    )
    end_streams: bool = Field(
        default=False,
        description="Have Envoy end streams, and all else that goes on, with their token: at its exp and the leeway. "
        "Unary methods of descriptors are left alone.",
    )
    jwt_authn_payload: str = Field(
        "",
        description="payload_in_metadata of Envoy's jwt_authn, to believe what it has verified where a request has no "
        "token any more; only Envoy may then reach this server. By default no such payload is believed.",
    )
    introspect_max_age: float | None = Field(
        None,
        ge=0,
        le=ACTIVE_SECONDS,
        description="Ask the issuer whether tokens have been withdrawn; how many seconds old its word may be, "
        "0 asks for every call. By default the issuer is not asked.",
    )
    introspect_if_unavailable: Literal["deny", "local"] = Field(
        "deny", description="While the issuer does not answer: deny, or local to believe the signature."
    )
    workos_api_key: SecretStr | None = None
    workos_api_key_file: str | None = Field(
        None,
        description="A file that holds the API key of WorkOS, if not AUTHZ_WORKOS_API_KEY: ask WorkOS who the "
        "organizations are that call. By default WorkOS is not asked.",
    )
    workos_base_url: str | None = Field(None, description="Where WorkOS is asked, if not at https://api.workos.com.")
    workos_groups_key: str = Field(
        "", description="The key of WorkOS's metadata that names an organization's groups, with commas between them."
    )
    workos_events: bool = Field(
        default=False,
        description="Follow the events of WorkOS: an organization that is deleted there is refused within seconds, and "
        "one that changes is asked about anew. Needs workos_api_key.",
    )
    workos_events_interval: float = Field(
        2.0, ge=0.5, le=60, description="Seconds between two questions for events; one replica asks."
    )
    workos_applications: bool = Field(
        default=False,
        description="List the applications of WorkOS now and then: one that is listed no more is refused, for WorkOS "
        "tells of no deletion. Needs workos_events.",
    )
    workos_applications_interval: float = Field(
        300.0, ge=5, le=86_400, description="Seconds between two lists of applications; one replica asks."
    )
    workos_webhooks: str | None = Field(
        None,
        description="HOST:PORT where webhooks of WorkOS are taken, by POST /webhooks/workos: each has WorkOS asked for "
        "events at once. Without TLS, which a proxy in front is to end. Needs workos_events.",
    )
    workos_webhook_secret: SecretStr | None = None
    workos_webhook_secret_file: str | None = Field(
        None,
        description="A file that holds the secret by which WorkOS signs them, if not AUTHZ_WORKOS_WEBHOOK_SECRET; up "
        "to three, on a line each, while one replaces another.",
    )
    unknown_organizations: Literal["allow", "deny"] = Field(
        "allow",
        description="deny refuses organizations that WorkOS does not know; or if WorkOS is not asked, those that the "
        "policy does not list.",
    )
    token_memory: str | None = Field(
        None,
        description="What verified tokens may take of the memory, all workers together, such as 64MiB: of more tokens "
        "the oldest are verified anew. By default a sixteenth of what the container may use, at most 32MiB for each "
        "worker.",
    )
    max_pending: int = Field(
        1024, ge=1, description="Checks that may wait, half of them of one organization; one more is refused at once."
    )
    decision_log: Literal["off", "denied", "all"] = Field(
        "off", description="Write each decision, or each that is not to allow, as a JSON line."
    )
    decision_log_file: str | None = Field(None, description="Where to, if not to standard output.")
    remember: float | None = Field(
        None,
        ge=1,
        le=300,
        description="For how many seconds Envoy may repeat a yes instead of asking again, as `authz envoy-config "
        "--remember` has it do; what may change earlier is taken back by xds. By default Envoy asks every time.",
    )
    xds: str | None = Field(
        None,
        description="Where Envoy hears that it must ask again (ECDS): unix:PATH, tls:HOST:PORT with "
        "tls_client_ca_file, or file:PATH in a folder of mode 0700.",
    )
    audit_listen: str | None = Field(
        None, description="Where decisions can be watched (authz.v1.Audit): HOST:PORT of loopback, or unix:PATH."
    )
    access_log_listen: str | None = Field(
        None,
        description="unix:PATH where Envoy tells of the calls whose answers it has repeated, for the decision log, "
        "audit, metrics and the admin page.",
    )
    forward_auth: str | None = Field(
        None,
        description="HOST:PORT, tls:HOST:PORT or unix:PATH where other proxies than Envoy ask over HTTP: nginx "
        "(auth_request), Traefik (ForwardAuth), Caddy (forward_auth). Only they may reach it.",
    )
    forward_auth_headers: Literal["original", "forwarded", "none"] | None = Field(
        None,
        description="What names the request there, which the proxy must set: original for X-Original-Method and "
        "X-Original-URI (nginx), forwarded for X-Forwarded-Method and X-Forwarded-Uri (Traefik, Caddy), none for the "
        "method and path of the question itself (Envoy with an HTTP service).",
    )
    descriptors: str | None = Field(
        None,
        description="A descriptor set of the API (buf build -o api.binpb): callers must have what its methods declare "
        "with (authz.v1.access), as far as policy does not narrow it; and requests that Envoy shows must not name "
        "another organization in fields marked (authz.v1.organization).",
    )
    isolation: Literal["when_body", "enforce"] = Field(
        "when_body",
        description="Where Envoy shows no body of a method with such fields: when_body to leave it to the upstream, "
        "enforce to refuse it.",
    )
    realm: str = Field("api", description="What www-authenticate calls this API.")
    resource_metadata: str = Field(
        "", description="The https URL of this API's protected resource metadata (RFC 9728), for www-authenticate."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes to serve with. They share TCP ports; unix:PATH becomes PATH.0, PATH.1 and so on. "
        "SIGHUP then replaces them one by one.",
    )
    worker_timeout: float = Field(
        30.0,
        ge=2,
        le=3600,
        description="Seconds without a sign of life after which a worker counts as hung, and is killed and started "
        "again. With one process /healthz then answers 503.",
    )
    http_listen: str | None = Field(
        None, description="HOST:PORT of /healthz, /readyz and /metrics, such as 127.0.0.1:9192."
    )
    usage_metrics_by_organization: int = Field(
        0,
        ge=0,
        le=1000,
        description="How many organizations have figures of their own in /metrics, with their id as a label; the calls "
        "of all others are in one. By default there are only totals.",
    )
    admin: str | None = Field(
        None, description="HOST:PORT of the admin page, such as 127.0.0.1:9902; loopback only, unless told otherwise."
    )
    admin_allow_remote: bool = Field(
        default=False, description="Let other machines see the admin page, which has no TLS and shows every caller."
    )
    admin_secret: SecretStr | None = None
    admin_secret_file: str | None = Field(
        None,
        description="A file that holds the secret for suspending and revoking there, if not AUTHZ_ADMIN_SECRET. "
        "By default neither is possible.",
    )
    drain: float = Field(
        0.0,
        ge=0,
        le=3600,
        description="Seconds from saying NOT_SERVING to the end, in which load balancers can go elsewhere.",
    )
    grace: float = Field(5.0, ge=0, le=3600, description="Seconds that running checks get when the server stops.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto is text on a terminal, else JSON.")

    def webhook_secrets(self) -> tuple[str, ...]:
        """Return the secrets by which webhooks of WorkOS may be signed; none if none are taken.

        Raises:
            ConfigError: a setting is missing or cannot work, or a secret can be guessed.

        """
        given, file = self.workos_webhook_secret, self.workos_webhook_secret_file
        if self.workos_webhooks is None:
            if given is not None or file is not None:
                raise ConfigError("workos_webhooks: missing; set HOST:PORT, since there is a workos_webhook_secret")
            return ()
        if not self.workos_events:
            raise ConfigError("workos_webhooks: needs workos_events; a webhook only says that there is one to ask for")
        if parse("workos_webhooks", self.workos_webhooks).kind != "tcp":
            raise ConfigError(f"workos_webhooks: {self.workos_webhooks!a} is not HOST:PORT, such as 127.0.0.1:9194")
        secrets = tuple(needed_secret("workos_webhook_secret", given, file).split())
        if not all(len(secret) >= _MIN_WEBHOOK_SECRET for secret in secrets):
            raise ConfigError(
                f"workos_webhook_secret: shorter than {_MIN_WEBHOOK_SECRET} characters; "
                "take the one that WorkOS shows for the webhook"
            )
        if len(secrets) > _MAX_WEBHOOK_SECRETS:
            raise ConfigError(f"workos_webhook_secret: more than {_MAX_WEBHOOK_SECRETS}; leave out what is replaced")
        return secrets

    def admin_secret_text(self) -> str:
        """Return the secret for acting on the admin page; empty if the page only shows.

        Raises:
            ConfigError: its file cannot be read, or it can be guessed.

        """
        secret = secret_of("admin_secret", self.admin_secret, self.admin_secret_file)
        is_given = self.admin_secret is not None or self.admin_secret_file is not None
        if is_given and len(secret) < _MIN_ADMIN_SECRET:
            raise ConfigError(
                f"admin_secret: shorter than {_MIN_ADMIN_SECRET} characters; take a random one (openssl rand -hex 24)"
            )
        return secret
