"""What each reason means, and what to do about it."""

MEANINGS = {
    "unauthenticated": "The caller could not be identified. Look into the server's log.",
    "token_missing": "The request carries no authorization header. Give a token, or name the method in public_methods.",
    "token_malformed": "The authorization header is not one token in the form `Bearer <JWT>`. "
    "Compare it with `authz token`.",
    "algorithm_not_allowed": "The token is signed with an algorithm that the server does not allow. "
    "Allow it with --algorithms, if the issuer means to use it.",
    "signature_invalid": "The issuer's key did not sign this token. Do not trust it; get a new one from the issuer.",
    "key_not_found": "The issuer publishes no key with the token's kid. Get a new token; "
    "if that fails too, compare --jwks-url with the issuer's.",
    "claim_missing": "The token lacks a claim that it must have. `authz verify` shows which; "
    "a token of an M2M application has all of them.",
    "claim_invalid": "A claim is not as required: another issuer or audience, not valid yet, a person's token, "
    "another issuer's organization, or bound to another certificate. `authz verify` shows which.",
    "token_expired": "The token has expired. Get a new one; if it is new, compare the clocks.",
    "token_inactive": "The token has been withdrawn, by the issuer or by the operator. "
    "Get a new one; if it is refused too, ask them why access was withdrawn.",
    "token_denied": "The issuer refused the client a token; the error names the issuer's reason. "
    "Check the client's id, its secret and what it asks for.",
    "mesh_metadata_invalid": "A trusted proxy named the caller in metadata that is not valid. "
    "Check what the proxy sends.",
    "permission_denied": "The caller is known and may not do this. Ask the operator about the rules.",
    "insufficient_scope": "The token lacks scopes that the route or the .proto asks for; www-authenticate names them. "
    "Have the issuer grant them to the application, and get a new token.",
    "policy_denied": "The policy has no rule that allows this, or one that denies it. "
    "The server's decision log names the rule; `authz policy explain` says why.",
    "organization_suspended": "The caller's organization is suspended, by the policy or by the operator. "
    "Look at the policy file and at the admin page.",
    "quota_exceeded": "The caller's organization has used up its quota. Call less often, and wait as retry-after says; "
    "the policy file has the plans.",
    "organization_unknown": "The directory knows no organization of this id, or the policy lists none. "
    "Compare the token's org_id with WorkOS and with the policy file.",
    "organization_mismatch": "The request names another organization than the caller's. "
    "Name the caller's own in the field that says whose data is meant, or leave the field empty.",
    "organization_unverified": "The request may name another organization, and the server cannot check it. "
    "docs/isolation.md says what Envoy must show, how large a request may be, and how it may be sent; "
    "gRPC clients must not compress.",
    "request_malformed": "Servers may read the path in different ways, or the path or the headers are too large to be "
    "checked (docs/security-rules.md, Limits). Give /package.Service/Method, or with --http an absolute path. "
    "If the policy names HTTP methods, give one in capitals, and no header that may replace it "
    "(docs/policy.md, HTTP methods).",
    "unavailable": "No verdict is possible now. Try again, and look into the server's log.",
    "orders_unknown": "The server has just started, and does not know yet whom the operator keeps out, because the "
    "store does not answer. Look at the store, and at --store; with --orders a server starts without it.",
    "key_set_unavailable": "The server cannot get the issuer's keys. "
    "Check --issuer and --jwks-url, and whether the server can reach them; its log names the error.",
    "key_undecided": "The token names a key that the server does not know, and it has asked the issuer for such keys "
    "as often as it may. Try again after the time in retry-after; if that fails too, a client invents kids.",
    "introspection_unavailable": "The server cannot ask the issuer whether the token was withdrawn. "
    "Check --introspection-url, the credentials and the network; its log names the error.",
    "directory_unavailable": "The server cannot ask WorkOS about the organization, and remembers no earlier answer. "
    "Check AUTHZ_WORKOS_API_KEY and the network; its log names the error.",
    "quota_unavailable": "The store in which servers count calls together does not answer, and quota_if_unavailable is "
    "deny. Try again; if that fails too, look at the store and into the server's log.",
    "overloaded": "Too many checks of this organization, or of all, wait for keys, the issuer or the directory. "
    "Make fewer calls at once, find out why they wait, or raise --max-pending.",
    "mesh_undecided": "A proxy let the call pass without a verdict. Set failure_mode_allow to false.",
    "token_endpoint_unavailable": "The token endpoint gave no token. Try again; "
    "if that fails too, check its URL and the network. The error says what it answered.",
    "internal": "Something unforeseen happened, so the call was refused. "
    "The server's log says where; please report it.",
}
"""By reason (:mod:`authz.errors`): what happened, and what to do about it."""

_OTHER = "The server gave a reason that this version does not know. Look into its log."


def meaning(reason: str) -> str:
    """Return the sentences for ``reason``."""
    return MEANINGS.get(reason, _OTHER)
