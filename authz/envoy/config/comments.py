"""The comments in Envoy's configuration: why each part is there."""

HTTP = {
    "*/filter_chains": "Plain text. For TLS give the chain a transport_socket with a DownstreamTlsContext; with mutual "
    "TLS (validation_context) the server also sees certificates that tokens are bound to.",
    "*/address/socket_address/ipv4_compat": "As for `authz serve`: IPv4 and IPv6. By default Envoy accepts only IPv6.",
    "*/per_connection_buffer_limit_bytes": "1 MiB by default, for each connection that a caller opens; beyond it "
    "Envoy stops reading until it can write.",
    "*/use_remote_address": "Envoy is the edge: callers are not trusted about their own addresses. Behind a load "
    "balancer that writes x-forwarded-for, set xff_num_trusted_hops to the exact number of such hops.",
    "*/request_headers_timeout": "Without it a caller may send its headers for ever, and so hold connections. "
    "There is no request_timeout, because a stream of requests may last.",
    "*/max_request_headers_kb": "Envoy's default: a check carries all of them.",
    "*/max_headers_count": "Envoy's default, for the same reason.",
    "*/headers_with_underscores_action": "Some servers read x_org_id as x-org-id. HTTP callers get 400, gRPC "
    "callers INTERNAL, because the stream is reset. If yours send metadata such as x_custom: DROP_HEADER removes it, "
    "ALLOW lets it pass; trusted names are removed in every spelling in any case.",
    "*/max_concurrent_streams": "1024 by default. gRPC clients hold back further calls; those that keep many streams "
    "open for long need several channels, or a larger number here.",
    "*/initial_stream_window_size": "What a caller may send ahead, on each stream and on a connection: 16 and 24 MiB "
    "by default, all of it in memory. A stream over a long distance sends this much in each round trip.",
    "*/connection_keepalive": "None by default: Envoy would not notice a caller that has vanished, and streams have "
    "no timeout. It also keeps quiet connections alive that pass through a NAT or a load balancer.",
    "*/normalize_path": "One spelling per path: else /public/../private may be routed as one path and served as the "
    "other.",
    "*/early_header_mutation_extensions": "Only the authorization server may say who calls: trusted names are "
    "removed first, so also on routes that have no ext_authz.",
    "*/safe_regex": "Paths that only some upstreams read as a step upwards (..;) have no route.",
    "*envoy.filters.http.header_mutation": "The same for a request's trailers, which some servers of HTTP/2 treat as "
    "headers.",
    "*/routes/*/grpc": "gRPC calls; streams may last and may be quiet, so there is no timeout. By default calls end "
    "after 15 s (timeout), and streams on which nothing is sent after 5 minutes (stream_idle_timeout of the manager, "
    "which idle_timeout replaces). The backend keeps the caller's own deadline. Answers to plain HTTP requests, such "
    "as events that a server sends, may last as well if something is sent every 5 minutes.",
    "*/typed_per_filter_config/envoy.filters.http.cors": "Pages of these origins may call from a browser, and read "
    "the answers. No allow_credentials: a page sets the token's header itself; browsers do not add it, as they do "
    "with cookies. Name your own headers in allow_headers and expose_headers.",
    "*/response_headers_to_add": "So that no cache gives one origin the answer to another.",
    "*/http_filters/envoy.filters.http.cors": "Before the check: it answers preflights, which have no token, and lets "
    "pages read refusals. Any other OPTIONS, or one from another origin, is checked like every request.",
    "*/http_filters/envoy.filters.http.grpc_web": "After the check, which so sees which callers speak gRPC-Web, and "
    "refuses in its form; before it, every refusal would have the code that Envoy makes from an HTTP status.",
    "*/http_filters/envoy.filters.http.header_mutation.grpc_web_content_type": "Refusals of gRPC-Web have no body, so "
    "Envoy removes their content-type; without one, some clients do not read the status.",
    "*/http_filters/authz.memo": "Repeats a yes of the server to calls with the same token and path, for as long as "
    "the server has said (AUTHZ_REMEMBER); never a no. Off for a route that asks for more than a good token "
    '(context_extensions of ext_authz): give it typed_per_filter_config {authz.memo: {"@type": type.googleapis.com/'
    "envoy.extensions.filters.http.lua.v3.LuaPerRoute, disabled: true}}. No other filter may write the metadata "
    "authz.memo.",
    "*/config_discovery/config_source": "The script comes from `authz serve` (AUTHZ_XDS), which sends a new one as "
    "soon as an answer may be over. Only the server may write there: the script runs in Envoy.",
    "*/default_config": "Until there is a script, and whenever the server has been silent for 5 s, nothing is "
    "repeated.",
    "*/access_log": "Tells `authz serve` (AUTHZ_ACCESS_LOG_LISTEN) of the calls whose answers were repeated, and of no "
    "other call, so that its decision log, audit and figures have them as well.",
    "*envoy.filters.http.ext_authz": "Asks `authz serve` about every request.",
    "*/filter_enabled_metadata": "But not where an answer was repeated. An error in the script leaves no mark, so the "
    "server is asked.",
    "*/grpc_service/timeout": "For all tries together. The default, 0.2 s, is short for a server that fetches keys.",
    "*/retry_policy": "A check has no effect, except that quotas may count it, so one without an answer is repeated. "
    "This is the policy of grpc_service; that of envoy_grpc is not used for checks.",
    "*/retry_policy/retry_on": "cancelled is the status of calls that reach a gRPC server while it stops.",
    "*/max_interval": "Envoy uses it as the timeout of each try as well: a shorter one would repeat every slow check.",
    "*/retry_host_predicate": "Retry another host: without it most retries may go to the server that is gone.",
    "*/failure_mode_allow": "Undecided requests are refused.",
    "*/status_on_error": "Without it a caller gets 403, as if forbidden, while the authorization server is down.",
    "*/validate_mutations": "An answer with a header that is not valid is an error, and never passed on.",
    "*/encode_raw_headers": "The bytes that the caller sent, with duplicates kept apart.",
    "*/include_peer_certificate": "With mutual TLS, a token may be bound to it.",
    "*/include_tls_session": "Tells whether there is TLS at all, which a policy may ask for.",
}

CLUSTERS = {
    "*/clusters/authz": "The authorization servers: one endpoint for each worker that has a socket of its own.",
    "*/authz/circuit_breakers": "Every request is checked, so checks need room; and when a worker dies, all of its "
    "checks may be retried elsewhere at once, while Envoy allows three retries by default.",
    "*/authz/common_lb_config": "While one server is healthy, only healthy ones are asked; by default unhealthy ones "
    "are, too, once they are more than half. If none is, all are: one without keys still answers why, with 503 and "
    "retry-after.",
    "*/authz/common_lb_config/update_merge_window": "By default a second change of health within a second counts only "
    "at its end: too late when workers are replaced one by one.",
    "*/authz/*/max_requests_per_connection": "Without it each thread of Envoy keeps one connection for "
    "ever, so all its checks go to one of the workers that share a port, or to one of the servers behind an address.",
    "*/authz/health_checks": "A server is healthy when it can decide, which needs the issuer's keys.",
    "*/authz/health_checks/0/no_traffic_interval": "A minute by default, for which an idle Envoy would not notice a "
    "new server.",
    "*/clusters/authz_xds": "Where the server tells Envoy what to forget.",
    "*/authz/transport_socket": "The server at this address decides who gets in: its certificate must name the host.",
}

UPSTREAMS = {
    "*/endpoint/additional_addresses": "localhost may be either; the second is tried if the first refuses. By name "
    "Envoy would try only ::1.",
    "*upstream/dns_lookup_family": "By default Envoy uses only the IPv6 address of a name that has one, though many "
    "servers listen only on IPv4.",
    "*upstream/upstream_connection_options": "None by default: Envoy would not notice an upstream that has vanished. "
    "No HTTP/2 keepalive, because gRPC servers close connections with more than one PING in 5 minutes.",
    "*upstream/circuit_breakers": "By default the 1,025th open request is refused with 503; ten connections of one "
    "caller can reach that. Here callers' own limits and the heap are the limit. Put a smaller number here to spare "
    "the backend.",
    "*http_upstream/*/common_http_protocol_options": "1 h by default, but most servers close idle connections after "
    "seconds: a request on a connection that is just being closed fails with 503.",
}

BOOTSTRAP = {
    **HTTP,
    **CLUSTERS,
    **UPSTREAMS,
    "/node": "Envoy must have a name to ask for a script.",
    "/grpc_route": "Else calls end after 15 s, and streams on which nothing is sent after 5 minutes.",
    "/http_route": "Else answers, such as events that a server sends, are cut off after 15 s.",
    "/upstream_cluster/dns_lookup_family": "By default Envoy uses only the IPv6 address of a name that has one.",
    "/upstream_cluster/circuit_breakers": "By default the 1,025th open request is refused with 503.",
    "/upstream_cluster/upstream_connection_options": "By default Envoy does not notice an upstream that has vanished.",
    "*/clusters/*/initial_stream_window_size": "The same for what upstreams send. Callers share connections, so none "
    "of them may use up a connection's window: callers that do not read take up a window for each of their streams, "
    "and with 1 MiB for all, a few dozen such streams stop the answers to all other callers.",
    "/upstream_http2_protocol_options": "Callers share connections to upstreams: one that does not read must not use "
    "up the window of all.",
    "/admin": "Anybody who reaches this can stop Envoy: keep it on loopback.",
    "*/ignore_global_conn_limit": "It must also answer when callers have taken all connections.",
    "/overload_manager": "By default Envoy accepts whatever it is sent, until the kernel kills it.",
    "*/max_heap_size_bytes": "Tune it: well below the memory of the machine or the container.",
    "*/max_active_downstream_connections": "Tune it to the heap: 35 kB for each idle connection, and more with TLS. "
    "Further ones are closed at once.",
    "*/envoy.overload_actions.shrink_heap": "First Envoy gives back memory that it does not use; then it refuses "
    "requests with 503 (UNAVAILABLE). Calls and streams that are open go on.",
    "/layered_runtime": "A caller that keeps opening streams and resetting them at once is disconnected "
    "(CVE-2023-44487): these are Envoy's defaults, as are its limits on floods of frames (max_outbound_frames and the "
    "like), repeated here so that you find them. And of the requests that a caller sends together, one is begun at a "
    "time; else streams that are reset as soon as they are opened all become checks that are reset, hundreds in a "
    "row, which end the connection to the authorization server on which other callers' checks wait.",
}
