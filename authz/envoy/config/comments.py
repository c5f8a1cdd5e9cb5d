"""What Envoy's configuration says of its parts: why each is there."""

HTTP = {
    "*/filter_chains": "Plain text. For TLS give the chain a transport_socket with a DownstreamTlsContext; with mutual "
    "TLS (validation_context) the server also sees certificates that tokens are bound to.",
    "*/use_remote_address": "Envoy is the edge: what callers say of their own addresses is not believed.",
    "*/normalize_path": "One spelling per path: else /public/../private is routed as one and served as the other.",
    "*/early_header_mutation_extensions": "Nobody may say who they are but the authorization server. Before everything "
    "else, so also on routes that have no ext_authz.",
    "*/safe_regex": "Steps upwards that only some upstreams see as such (..;) have no route.",
    "*/routes/*/grpc": "gRPC calls; streams may last, so there is no timeout.",
    "*envoy.filters.http.ext_authz": "Asks `authz serve` about every request.",
    "*/grpc_service/timeout": "For all tries together. The default, 0.2 s, is short for a server that fetches keys.",
    "*/retry_policy": "A check has no effects, but that quotas may count it, so one that got no answer is "
    "repeated. This is the policy of grpc_service; that of envoy_grpc is not used for checks.",
    "*/retry_policy/retry_on": "cancelled is what the core of gRPC makes of calls that reach a server while it stops.",
    "*/max_interval": "Envoy takes it for the timeout of a try as well: a shorter one would repeat every slow check.",
    "*/retry_host_predicate": "Elsewhere: without it most repetitions may go to the server that is gone.",
    "*/failure_mode_allow": "What cannot be decided is refused.",
    "*/status_on_error": "Without it an authorization server that is down looks like a caller who is forbidden.",
    "*/validate_mutations": "An answer that is no header is an error, and never sent on.",
    "*/encode_raw_headers": "The bytes that the caller sent, duplicates apart.",
    "*/include_peer_certificate": "With mutual TLS it is what a token may be bound to.",
    "*/include_tls_session": "Whether there is TLS at all, which a policy may ask for.",
}

CLUSTERS = {
    "*/clusters/authz": "The authorization servers: one endpoint for each worker that has a socket of its own.",
    "*/authz/circuit_breakers": "Every request is checked, so checks need room; and when a worker dies all that it was "
    "asked may go elsewhere at once, where Envoy would permit three.",
    "*/authz/common_lb_config": "While one is healthy only healthy ones are asked; by default the sick are, too, once "
    "they are more than half. When none is, all are: one without keys still says why, with 503 and retry-after.",
    "*/authz/common_lb_config/update_merge_window": "By default a second change of health within a second counts only "
    "at its end: too late where workers are replaced one by one.",
    "*/authz/health_checks": "A server is healthy when it can decide, which needs the issuer's keys.",
    "*/authz/health_checks/0/no_traffic_interval": "A minute by default, in which an idle Envoy would not see that a "
    "server has come.",
    "*/authz/transport_socket": "Whoever answers here decides who gets in: its certificate must name the host.",
}

BOOTSTRAP = {
    **HTTP,
    **CLUSTERS,
    "/layered_runtime": "Of what a caller sends together one request is begun at a time. Else streams that are reset "
    "as soon as they are opened all become checks that are reset, hundreds in a row, and end the connection to the "
    "authorization server on which other callers' checks wait.",
    "/admin": "Whoever reaches this can stop Envoy: keep it on loopback.",
}
