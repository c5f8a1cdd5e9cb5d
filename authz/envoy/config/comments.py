"""What Envoy's configuration says of its parts: why each is there."""

HTTP = {
    "*/filter_chains": "Plain text. For TLS give the chain a transport_socket with a DownstreamTlsContext; with mutual "
    "TLS (validation_context) the server also sees certificates that tokens are bound to.",
    "*/address/socket_address/ipv4_compat": "As for `authz serve`: both families. By default Envoy takes IPv6 alone.",
    "*/per_connection_buffer_limit_bytes": "1 MiB by default, for each of the connections that a stranger may open; "
    "beyond it Envoy stops to read until it can write.",
    "*/use_remote_address": "Envoy is the edge: what callers say of their own addresses is not believed. Behind a load "
    "balancer that writes x-forwarded-for set xff_num_trusted_hops to the number of such hops, and never to more.",
    "*/request_headers_timeout": "Without it a caller may take for ever over its headers, and hold a connection with "
    "each. There is no request_timeout: a stream of requests may last.",
    "*/max_request_headers_kb": "Envoy's default: a check takes all of them along.",
    "*/max_headers_count": "Envoy's default, for the same reason.",
    "*/headers_with_underscores_action": "Some servers read x_org_id as x-org-id. HTTP callers get 400, gRPC "
    "callers INTERNAL, for the stream is reset. If yours send metadata such as x_custom: DROP_HEADER takes it away, "
    "ALLOW lets it pass; names that only we may use are removed in every spelling all the same.",
    "*/max_concurrent_streams": "1024 by default. gRPC clients wait with what is more; those that keep many streams "
    "open for long need several channels, or a larger number here.",
    "*/initial_stream_window_size": "What a caller may send ahead, of each stream and of a connection: 16 and 24 MiB "
    "by default, all of it in memory. A stream over a long distance gets this much through in each round trip.",
    "*/connection_keepalive": "None by default: of a caller that is gone without a word Envoy hears nothing, and "
    "streams have no timeout. It also keeps quiet connections alive that pass through a NAT or a load balancer.",
    "*/normalize_path": "One spelling per path: else /public/../private is routed as one and served as the other.",
    "*/early_header_mutation_extensions": "Nobody may say who they are but the authorization server. Before everything "
    "else, so also on routes that have no ext_authz.",
    "*/safe_regex": "Steps upwards that only some upstreams see as such (..;) have no route.",
    "*envoy.filters.http.header_mutation": "The same for what follows a request's body: trailers, which some servers "
    "of HTTP/2 take for more headers.",
    "*/routes/*/grpc": "gRPC calls; streams may last and may be quiet, so there is no timeout. By default calls end "
    "after 15 s (timeout), and streams on which nothing is sent after 5 minutes (stream_idle_timeout of the manager, "
    "which idle_timeout replaces). The backend keeps the caller's own deadline. Answers to plain HTTP requests may "
    "last as well, events that a server sends among them, while something is sent once in 5 minutes.",
    "*/typed_per_filter_config/envoy.filters.http.cors": "Pages of these origins may call from a "
    "browser, and read what is answered. No allow_credentials: a token comes in a header that a page writes, and never "
    "by itself, as cookies do. Name your own headers in allow_headers and expose_headers.",
    "*/response_headers_to_add": "No cache may give one origin what was answered to another.",
    "*/http_filters/envoy.filters.http.cors": "Before the check: it answers preflights, which have no token, and lets "
    "browsers read refusals. Any other OPTIONS, or of another origin, is checked like every request.",
    "*/http_filters/envoy.filters.http.grpc_web": "Behind the check, which sees so who speaks gRPC-Web, and refuses in "
    "its form; before it every refusal would have the code that Envoy makes of an HTTP status.",
    "*/http_filters/envoy.filters.http.header_mutation.grpc_web_content_type": "Refusals of gRPC-Web have no body, so "
    "Envoy takes away their content-type, without which some clients look no further.",
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

UPSTREAMS = {
    "*/endpoint/additional_addresses": "localhost is either, and the second is tried when the first refuses. By name "
    "Envoy would ask at ::1 alone.",
    "*upstream/dns_lookup_family": "By default a name that has an IPv6 address is reached by that alone, though many "
    "servers listen on IPv4 only.",
    "*upstream/upstream_connection_options": "None by default: of an upstream that is gone without a word Envoy hears "
    "nothing. No HTTP/2 keepalive, for gRPC servers end connections on which they get a PING more than once in 5 "
    "minutes.",
    "*upstream/circuit_breakers": "By default the 1,025th open request is refused with 503, which ten connections of "
    "one caller bring about. Here as many are open as callers may open; the heap is the limit. Put a smaller number "
    "here to spare the backend.",
    "*http_upstream/*/common_http_protocol_options": "1 h by default, while most servers close what is idle after "
    "seconds: then a request meets a connection that is just being closed, and fails with 503.",
}

BOOTSTRAP = {
    **HTTP,
    **CLUSTERS,
    **UPSTREAMS,
    "/grpc_route": "Else calls end after 15 s, and streams on which nothing is sent after 5 minutes.",
    "/http_route": "Else an answer is cut after 15 s, events that a server sends in the midst.",
    "/upstream_cluster/dns_lookup_family": "By default a name that has an IPv6 address is reached by that alone.",
    "/upstream_cluster/circuit_breakers": "By default the 1,025th open request is refused with 503.",
    "/upstream_cluster/upstream_connection_options": "By default Envoy hears nothing of one that has "
    "gone without a word.",
    "*/clusters/*/initial_stream_window_size": "The same for what upstreams send. A connection to one is shared by "
    "callers, so none of them may use up its window: those that do not read hold one of each of their streams, "
    "and with 1 MiB for all a few dozen such streams stop the answers to everybody else.",
    "/upstream_http2_protocol_options": "Callers share connections to upstreams: one that does not read must not use "
    "up the window of all.",
    "/admin": "Whoever reaches this can stop Envoy: keep it on loopback.",
    "*/ignore_global_conn_limit": "It answers when callers have taken all connections, too.",
    "/overload_manager": "By default Envoy takes what it is sent until the kernel ends it.",
    "*/max_heap_size_bytes": "Tune it: well below what the machine or the container grants.",
    "*/max_active_downstream_connections": "Tune it, to what the heap bears: 35 kB for each that is idle, and more "
    "with TLS. Further ones are closed as they come.",
    "*/envoy.overload_actions.shrink_heap": "First memory is given back that was only kept; then requests are refused "
    "with 503 (UNAVAILABLE). Calls and streams that are there go on.",
    "/layered_runtime": "A caller that opens streams and resets them at once, again and again, is disconnected "
    "(CVE-2023-44487): Envoy's defaults, as its limits on floods of frames are (max_outbound_frames and the like), "
    "said here so that they are found. And of what a caller sends together one request is begun at a time; else "
    "streams that are reset as soon as they are opened all become checks that are reset, hundreds in a row, and end "
    "the connection to the authorization server on which other callers' checks wait.",
}
