"""The mistakes, each with the tests that must notice it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent

_SERVER, _AIO = "interceptors/server.py", "interceptors/aio/server.py"
_DOORS = "tests/interceptors/"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong change.

    Args:
        name: what it breaks.
        file: where.
        old: the right text, which stands there once.
        new: what replaces it.
        tests: what must fail, as arguments of pytest.

    """

    name: str
    file: str
    old: str
    new: str
    tests: str

    def made_in(self, text: str) -> str:
        """Return ``text`` with the mistake.

        Raises:
            ValueError: the right text does not stand there exactly once.

        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has changed")
        return text.replace(self.old, self.new)


MISTAKES = (
    # ---- What the caller may not say ----
    Mistake(
        "forged metadata is not stripped",
        "authz/metadata.py",
        "[entry for entry in metadata if entry[0].lower() not in reserved]",
        "metadata",
        f"{_DOORS}test_server.py -k forged",
    ),
    Mistake(
        "-bin twins and underscores are not stripped",
        "authz/metadata.py",
        "frozenset(itertools.chain.from_iterable(map(_spellings, self.removed)))",
        "frozenset(self.names)",
        f"{_DOORS}test_server.py -k forged",
    ),
    Mistake(
        "one of two tokens is taken",
        "authz/bearer.py",
        "len(credentials) > 1 or ",
        "",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "methods that begin like a public one are public",
        "authz/authorizer.py",
        "return method in self._public or",
        "return method.startswith(tuple(self._public)) or",
        f"{_DOORS}test_server.py -k resembles",
    ),
    # ---- Refusals ----
    Mistake(
        "sync: refusals read the request first",
        _SERVER,
        "return grpc.stream_unary_rpc_method_handler(abort,",
        "return grpc.unary_unary_rpc_method_handler(abort,",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "aio: refusals read the request first",
        _AIO,
        "    # Serves all four kinds, and answers before the client has sent anything.\n"
        "    return grpc.stream_unary_rpc_method_handler(refuse)",
        "    return grpc.unary_unary_rpc_method_handler(refuse)",
        f"{_DOORS}test_server.py -k told_at_once",
    ),
    Mistake(
        "sync: refusals queue behind slow handlers",
        _SERVER,
        "        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]\n",
        "",
        f"{_DOORS}test_threads.py -k queue",
    ),
    Mistake(
        "sync: the polling thread waits for keys",
        _SERVER,
        "begun = flow, next(flow)",
        "return self._admitted(continuation(handler_call_details), call, run(flow))",
        f"{_DOORS}test_key_fetch.py -k nobody_else_waits",
    ),
    Mistake(
        "sync: SystemExit in a rule ends the server",
        _SERVER,
        "        except BaseException as error:  # noqa: BLE001 - see above",
        "        except Exception as error:  # noqa: BLE001 - see above",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "aio: an exception reaches the client",
        _AIO,
        "exception's text.\n            return _refused",
        "exception's text.\n"
        "            if isinstance(error, Exception):\n                raise\n            return _refused",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "aio: a fetch that is cancelled leaves the client without a status",
        "authz/flow.py",
        "    return task is not None and task.cancelling() > 0",
        "    return task is not None",
        f"{_DOORS}test_unforeseen.py",
    ),
    Mistake(
        "the request is read before the keys are there",
        _SERVER,
        "return with_behaviour(handler, decided, request_streaming=True)",
        "return with_behaviour(handler, decided)",
        f"{_DOORS}test_key_fetch.py",
    ),
    # ---- Handlers ----
    Mistake(
        "the caller is not reset on public methods",
        _SERVER,
        "            set_current_principal(principal)\n            return behaviour",
        "            if principal is not ANONYMOUS:\n"
        "                set_current_principal(principal)\n            return behaviour",
        f"{_DOORS}test_server.py -k public",
    ),
    Mistake(
        "aio: synchronous handlers do not know their caller",
        "interceptors/aio/behaviours.py",
        "    return variables.run",
        "    return lambda function, *arguments: function(*arguments)",
        f"{_DOORS}test_server.py -k current_principal",
    ),
    Mistake(
        "the context forgets names",
        "interceptors/context.py",
        '"set_details", "set_trailing_metadata", "time_remaining", "trailing_metadata"',
        '"set_details", "set_trailing_metadata"',
        f"{_DOORS}test_context.py",
    ),
    Mistake(
        "metadata entries are plain tuples",
        "authz/metadata.py",
        "*self.entries(principal))",
        "*map(tuple, self.entries(principal)))",
        f"{_DOORS}test_server.py -k shape",
    ),
    Mistake(
        "attributes of a non-blocking handler are lost",
        _SERVER,
        "functools.update_wrapper(serve_stream if may_end else serve, behaviour)",
        "serve_stream if may_end else serve",
        f"{_DOORS}test_neighbours.py",
    ),
    # ---- Streams ----
    Mistake(
        "streams outlive their token",
        "authz/streams.py",
        "        return ends_at + self._grace",
        "        return math.inf",
        f"{_DOORS}test_streams.py",
    ),
    Mistake(
        "tokens do not expire",
        "authz/claims.py",
        "    return expires_at <= now - leeway",
        "    return False",
        f"{_DOORS}test_server.py -k second_of_its_end",
    ),
    Mistake(
        "streams that are over stay registered",
        "authz/streams.py",
        "opened = self._open.pop(stream, None)",
        "opened = self._open.get(stream, None)",
        f"tests/test_streams.py {_DOORS}test_streams.py",
    ),
    Mistake(
        "sync: a handler that goes on sending is not interrupted",
        "interceptors/streams.py",
        "        if stream.refusal is not None:\n            break\n        yield reply",
        "        yield reply",
        f"{_DOORS}test_streams.py",
    ),
    Mistake(
        "sync: a blocked handler's client waits for ever",
        "interceptors/streams.py",
        "                self._context.cancel()",
        "                pass",
        f"{_DOORS}test_streams.py",
    ),
    Mistake(
        "relay: nobody wakes the thread that answers",
        "interceptors/relay.py",
        "        stream.wake = lambda: self._items.put(_ENDED)\n",
        "",
        f"{_DOORS}test_streams.py {_DOORS}test_relay.py",
    ),
    Mistake(
        "aio: the handler of an ended stream goes on",
        "interceptors/aio/streams.py",
        "            late.cancel()\n            self._task.cancel()",
        "            late.cancel()",
        f"{_DOORS}test_streams.py",
    ),
    Mistake(
        "what is revoked goes on streaming",
        "authz/authorizer.py",
        "        self.streams.end(TokenInactiveError(), self._revocations.concerns)",
        "        pass",
        f"{_DOORS}test_stream_revocation.py",
    ),
    Mistake(
        "a key that is withdrawn goes on vouching for its streams",
        "authz/remote_keys.py",
        "                watcher(withdrawn)",
        "                pass",
        f"{_DOORS}test_stream_revocation.py",
    ),
    # ---- The peer of the connection ----
    Mistake(
        "a bound token is good with any certificate",
        "authz/verifier.py",
        "    if peer.certificate != principal.certificate:",
        "    if not peer.certificate:",
        f"{_DOORS}test_certificate_bound.py",
    ),
    Mistake(
        "a bound token that is remembered is good for everybody",
        "authz/verifier.py",
        "evidence.source = source\n        if principal.certificate:\n",
        'evidence.source = source\n        if principal.certificate and source != "cache":\n',
        f"{_DOORS}test_certificate_bound.py",
    ),
    Mistake(
        "mesh: every peer is believed",
        "authz/mesh.py",
        "        if call.peer not in self:\n            return None\n",
        "",
        f"{_DOORS}test_mesh.py",
    ),
    Mistake(
        "mesh: what Envoy let pass undecided is believed",
        "authz/mesh.py",
        "raise MeshUndecidedError",
        "pass",
        f"tests/test_mesh.py {_DOORS}test_mesh.py",
    ),
    Mistake(
        "mesh: the principal need not be the organization's",
        "authz/mesh.py",
        "if said[trusted.org_id] != [principal.org_id]:",
        "if not said[trusted.org_id]:",
        f"tests/test_mesh.py {_DOORS}test_mesh.py",
    ),
    # ---- What requests name ----
    Mistake(
        "only the first message of a stream is checked",
        "interceptors/streams.py",
        """                self._check(request)
""",
        """                self._check(request)
                self._check = None
""",
        f"{_DOORS}test_isolation.py -k second_message",
    ),
    Mistake(
        "aio: a message that is read with the context is not checked",
        "interceptors/aio/behaviours.py",
        "return reading if self.requests is None else self.requests.checked(reading)",
        "return reading",
        f"{_DOORS}test_isolation.py -k second_message",
    ),
    Mistake(
        "a refused stream looks like one that its client has ended",
        "interceptors/aio/requests.py",
        "raise _EndedError from None",
        "raise StopIteration from None",
        f"{_DOORS}test_isolation.py -k second_message",
    ),
    Mistake(
        "a type that holds itself is looked into once",
        "authz/isolation.py",
        "            if inner in found:",
        "            if inner in found and inner is not one:",
        "tests/test_isolation.py -k only_the_callers",
    ),
    Mistake(
        "nobody may name any organization",
        "authz/isolation.py",
        "    if places is not None:\n        # Empty",
        "    if places is not None and principal.org_id:\n        # Empty",
        "tests/test_isolation.py -k nobody",
    ),
    Mistake(
        "envoy: the beginning of a body is taken for the whole",
        "authz/envoy/check/bodies.py",
        "    if http.raw_body and _is_partial(http):",
        "    if http.raw_body and False:",
        "tests/envoy/test_isolation.py -k beginning",
    ),
    Mistake(
        "envoy: a compressed message is let through",
        "authz/envoy/check/bodies.py",
        """            raise unverified("the message is compressed")""",
        "            return",
        "tests/envoy/test_isolation.py -k cannot_be_read",
    ),
    Mistake(
        "envoy: only a call that Envoy takes for gRPC is checked",
        "authz/envoy/check/isolation.py",
        """            raise unverified("the body is not that of gRPC")""",
        "            return",
        "tests/envoy/test_isolation.py -k other_kinds",
    ),
    Mistake(
        "isolation: the tenant is another organization",
        "interceptors/isolation.py",
        "tenant=principal.tenant",
        'tenant=""',
        f"{_DOORS}test_isolation.py -k own_organization",
    ),
    Mistake(
        "isolation: to Envoy the tenant is another organization",
        "authz/envoy/check/isolation.py",
        "check(message, principal, principal.tenant)",
        "check(message, principal)",
        "tests/envoy/test_isolation.py -k own_organization",
    ),
    Mistake(
        "isolation: a request that is refused has been told to be allowed",
        _AIO,
        "if rule is None or rule.is_stream:",
        "if hearing:",
        f"{_DOORS}test_isolation.py -k decision",
    ),
    # ---- The client ----
    Mistake(
        "a stream of requests is sent again",
        "interceptors/client.py",
        "stream_unary=intercept(is_repeatable=False, is_stream=False)",
        "stream_unary=intercept(is_repeatable=True, is_stream=False)",
        f"{_DOORS}test_bearer.py",
    ),
    Mistake(
        "a refusal drops the current token, whichever failed",
        "authz/token_source.py",
        "if self._token is None or self._token.text != token:",
        "if self._token is None:",
        "tests/test_token_source.py",
    ),
    Mistake(
        "a server that refuses every token makes us ask for ever more",
        "authz/token_source.py",
        "if len(self._invalidated) < _INVALIDATIONS or",
        "if True or",
        "tests/test_token_source.py",
    ),
    Mistake(
        "the token goes out without TLS",
        "interceptors/bearer.py",
        "        if self._insecure:\n            metadata =",
        "        if True:\n            metadata =",
        f"{_DOORS}test_bearer.py",
    ),
    Mistake(
        "the next service is told what the caller claimed",
        "interceptors/forwarding.py",
        "names.believed(details.metadata or (), principal_served())",
        "details.metadata or ()",
        f"{_DOORS}test_forwarding.py",
    ),
    # ---- Envoy ----
    Mistake(
        "envoy: a denial has the code of what is allowed",
        "authz/envoy/check/messages.py",
        "status=Status(code=refusal.code.value, message=refusal.message),",
        "status=Status(code=0, message=refusal.message),",
        "tests/envoy/test_check.py",
    ),
    Mistake(
        "envoy: a denial is a failure, which may be allowed",
        "authz/envoy/check/messages.py",
        "        denied_response=DeniedHttpResponse(",
        "        error_response=DeniedHttpResponse(",
        "tests/envoy/test_check.py",
    ),
    Mistake(
        "envoy: a trusted name that is not set is not removed either",
        "authz/envoy/check/messages.py",
        "removed = [name for name in trusted.removed if name not in names]",
        "removed = list[str]()",
        "tests/envoy/test_check.py",
    ),
    Mistake(
        "envoy: a line break may stand in a header",
        "authz/envoy/check/messages.py",
        '_VALUE = re.compile(r"[ -~]+")',
        '_VALUE = re.compile(r"(?s:.)+")',
        "tests/envoy/test_check.py",
    ),
    Mistake(
        "envoy: an upstream may miss what headers cannot hold",
        "authz/envoy/check/messages.py",
        "        if not is_fit(option.header):\n            raise InternalError\n",
        "",
        "tests/envoy/test_servicer.py",
    ),
    Mistake(
        "envoy: odd paths are allowed",
        "authz/envoy/check/servicer.py",
        "            messages.check_path(call.method, grpc=is_grpc)\n",
        "",
        "tests/envoy/test_servicer.py",
    ),
    Mistake(
        "envoy: any number of checks may wait",
        "authz/envoy/check/servicer.py",
        "if self._waiting.take(wait.whose):",
        "if self._waiting.take(wait.whose) or wait:",
        "tests/envoy/test_servicer.py -k beyond_what_may_wait",
    ),
    Mistake(
        "an observer that fails denies the call",
        "authz/authorizer.py",
        "except BaseException as error:  # noqa: BLE001 - whoever looks on has no say",
        "except KeyError as error:",
        "tests/interceptors/test_decisions.py -k observer_that_fails",
    ),
    Mistake(
        "the decision log waits for whoever reads it",
        "authz/decision_log.py",
        "if len(self._waiting) >= self._capacity:",
        "if False:",
        "tests/test_decision_log.py -k nobody_reads",
    ),
    Mistake(
        "the end of a stream is told as if it were allowed",
        "authz/hearing.py",
        'refusal, 0.0, door=self._door, event="stream_ended")',
        'None, 0.0, door=self._door, event="stream_ended")',
        "tests/interceptors/test_stream_revocation.py -k decision_of_its_own",
    ),
    Mistake(
        "what waits for a slow watcher has no bound",
        "authz/audit_service.py",
        "if len(self._waiting) >= self._capacity:",
        "if False:",
        "tests/test_audit_service.py -k loses_the_oldest",
    ),
    Mistake(
        "callers of the API may watch all others",
        "authz/audit_service.py",
        "if _has_been_admitted():",
        "if False:",
        "tests/test_audit_service.py -k beside_the_api",
    ),
    Mistake(
        "envoy: the certificate is that of the server",
        "authz/envoy/check/messages.py",
        "source = attributes.source",
        "source = attributes.destination",
        "tests/envoy/test_servicer.py",
    ),
    Mistake(
        "envoy: a certificate that cannot be read is an error",
        "authz/envoy/check/messages.py",
        "    except Exception:  # noqa: BLE001 - what cannot be read",
        "    except KeyError:  # what cannot be read",
        "tests/envoy/test_servicer.py",
    ),
    Mistake(
        "envoy: names in a certificate count though nobody may vouch for them",
        "authz/peer.py",
        "return cls(certificate=_certified(pem, False).certificate)",
        "return _certified(pem, False)",
        "tests/envoy/test_servicer.py",
    ),
    # ---- What Envoy says besides the request ----
    Mistake(
        "envoy route: one of several scopes is enough",
        "authz/requirements.py",
        "if not requirements.scopes <= principal.scopes:",
        "if requirements.scopes and not requirements.scopes & principal.scopes:",
        "tests/test_requirements.py",
    ),
    Mistake(
        "envoy route: any audience of the verifier is good",
        "authz/requirements.py",
        "if requirements.audience and requirements.audience not in principal.audience:",
        "if not principal.audience:",
        "tests/test_requirements.py",
    ),
    Mistake(
        "envoy route: an unknown policy asks nothing",
        "authz/requirements.py",
        'requirements.policy not in ("", policy):',
        "requirements.policy and not requirements:",
        "tests/test_requirements.py",
    ),
    Mistake(
        "envoy route: a misspelt name is somebody else's",
        "authz/requirements.py",
        "if _LIKE_OURS.fullmatch(name)}",
        "if name in _NAMES}",
        "tests/test_requirements.py",
    ),
    Mistake(
        "envoy route: a public path stays public whatever is asked",
        "authz/authorizer.py",
        "if call.requirements is None and self._is_public(call.method, policy):",
        "if self._is_public(call.method, policy):",
        "tests/test_requirements.py tests/envoy/test_context.py",
    ),
    Mistake(
        "envoy payload: believed though nobody wants that",
        "authz/envoy/check/servicer.py",
        "self._jwt_authn_payload = jwt_authn_payload\n",
        'self._jwt_authn_payload = jwt_authn_payload or "verified"\n',
        "tests/envoy/test_context.py -k by_default",
    ),
    Mistake(
        "envoy payload: counts beside a token that is not good",
        "authz/authorizer.py",
        "if call.verified_claims is None or credentials_of(call) or",
        "if call.verified_claims is None or",
        "tests/test_verified_claims.py tests/envoy/test_context.py",
    ),
    Mistake(
        "envoy payload: its time is not checked",
        "authz/verifier.py",
        "principal_from(claims, self._rules, self._time())",
        "principal_from(claims, self._rules, 0.0)",
        "tests/test_verified_claims.py",
    ),
    Mistake(
        "envoy payload: a stolen bound token is good",
        "authz/verifier.py",
        "self._rules, self._time())\n        if principal.certificate:\n",
        "self._rules, self._time())\n        if False:\n",
        "tests/test_verified_claims.py",
    ),
    Mistake(
        "envoy payload: introspection is left out",
        "authz/authorizer.py",
        " or credentials_of(call) or self._assurances.of(call.method, policy) is not None:",
        " or credentials_of(call):",
        "tests/test_verified_claims.py",
    ),
    # ---- The policy ----
    Mistake(
        "a deny rule that matches is passed over",
        "authz/policy/policy.py",
        "        if rule.is_deny:\n",
        "        if rule.is_deny and not rule.is_conditional:\n",
        "tests/policy/test_properties.py",
    ),
    Mistake(
        "a suspended organization is admitted",
        "authz/policy/policy.py",
        "        if organization.is_suspended:\n",
        "        if organization.is_suspended and not organization.tenant:\n",
        "tests/policy/test_enforcement.py",
    ),
    Mistake(
        "an outage of the directory makes strangers",
        "authz/directory.py",
        "        if record is None:\n            raise self._unavailable()",
        "        if record is None:\n            return None",
        "tests/test_organizations.py -k outage",
    ),
    Mistake(
        "a verdict outlives the groups that it rests on",
        "authz/policy/policy.py",
        "key = (method, principal.org_id, principal.client_id, principal.scopes, groups)",
        "key = (method, principal.org_id, principal.client_id, principal.scopes, frozenset())",
        "tests/test_organizations.py -k changes",
    ),
    Mistake(
        "any external_id becomes a header",
        "authz/workos_api.py",
        "        if tenant and not (isinstance(tenant, str) and is_identifier(tenant)):\n",
        "        if tenant and not isinstance(tenant, str):\n",
        "tests/test_workos_directory.py -k external_id",
    ),
    Mistake(
        "one verdict is remembered for every set of scopes",
        "authz/policy/policy.py",
        "key = (method, principal.org_id, principal.client_id, principal.scopes, groups)",
        "key = (method, principal.org_id, principal.client_id, frozenset(), groups)",
        "tests/policy/test_properties.py",
    ),
    Mistake(
        "only the first of several headers counts",
        "authz/policy/rules.py",
        'f"{headers[key]},{value}" if key in headers else value',
        "headers.get(key, value)",
        "tests/policy/test_a43.py",
    ),
    Mistake(
        "a policy file widens what the .proto grants",
        "authz/policy/declared.py",
        "if answer.is_deny or not self._is_narrowed:",
        "if not self._is_narrowed:",
        "tests/policy/test_declared.py -k allows_nothing",
    ),
    Mistake(
        "a policy file opens a method that its .proto shuts",
        "authz/policy/declared.py",
        "if access is not None and not access.public:",
        "if access is None:",
        "tests/policy/test_declared.py -k opens",
    ),
    Mistake(
        "a method whose .proto declares nothing is open to all",
        "authz/access.py",
        "        return None\n    return _access(",
        "        return Access()\n    return _access(",
        "tests/policy/test_declared.py -k shut",
    ),
    Mistake(
        "a set of scopes is held by whoever holds one of them",
        "authz/policy/rules.py",
        "any(needed <= scopes for needed in self.scopes)",
        "any(needed & scopes for needed in self.scopes)",
        "tests/policy/test_enforcement.py -k wholly",
    ),
    Mistake(
        "suspending leaves streams open",
        "authz/authorizer.py",
        "            self.streams.judge(self._refusal_of_stream)\n",
        "            self.streams  # noqa: B018\n",
        "tests/policy/test_enforcement.py -k streams",
    ),
    Mistake(
        "callers whom a proxy names are under no policy",
        "authz/authorizer.py",
        "        if policy is not None:\n            policy.admit(",
        "        if policy is not None and token:\n            policy.admit(",
        "tests/policy/test_enforcement.py -k proxy",
    ),
    Mistake(
        "callers whom jwt_authn has verified are under no policy",
        "authz/authorizer.py",
        "        if policy is not None:\n            policy.admit(",
        "        if policy is not None and call.verified_claims is None:\n            policy.admit(",
        "tests/policy/test_enforcement.py -k payload",
    ),
    Mistake(
        "a rule may ask for headers that callers forge",
        "authz/authorizer.py",
        "            policy.check_headers(self.trusted.reserved)\n",
        "",
        "tests/policy/test_enforcement.py -k removed_from_every_call",
    ),
    Mistake(
        "a bad file opens the door",
        "authz/reload.py",
        "        policy = load()\n",
        "        replace(None)\n        policy = load()\n",
        "tests/test_reload.py -k keeps_the_last_good",
    ),
    Mistake(
        "a file that is being written is put in force",
        "authz/reload.py",
        "if not self.files.are_the_same():",
        "if not self.files:",
        "tests/test_reload.py -k while_it_is_read",
    ),
    Mistake(
        "the shadow decides",
        "authz/authorizer.py",
        "        self._in_force = _InForce(self._checked(policy))\n",
        "        self._in_force = _InForce(self._checked(shadow or policy))\n",
        "tests/test_shadow.py",
    ),
    # ---- Quotas ----
    Mistake(
        "to ask for room uses it up",
        "authz/quota.py",
        "            if is_made:\n                # As it was",
        "            if decision.allowed:\n                # As it was",
        "tests/test_quota.py -k to_ask",
    ),
    Mistake(
        "an organization over its quota makes us ask the issuer",
        "authz/authorizer.py",
        "            self.check_quota(principal, policy)\n",
        "",
        "tests/policy/test_quotas.py -k does_not_make_us_ask",
    ),
    Mistake(
        "a stream that is closed twice leaves two places",
        "authz/streams.py",
        "            if opened is not None:\n                self._counts",
        "            if opened is not None or self._counts:\n                self._counts",
        "tests/test_streams.py -k however_often",
    ),
    Mistake(
        "clients of Envoy try again at once what is over the quota",
        "authz/envoy/check/messages.py",
        "if refusal.code in _NOT_AS_ENVOY_HAS_IT:",
        "if False:",
        "tests/envoy/test_check.py -k would_make_something_else",
    ),
    # ---- The admin page ----
    Mistake(
        "the admin page answers to any name",
        "authz/admin/guard.py",
        "if len(hosts) != 1 or not self._is_ours(hosts[0]):",
        "if len(hosts) != 1:",
        "tests/admin/test_app.py -k names",
    ),
    Mistake(
        "another site may act on the admin page",
        "authz/admin/guard.py",
        """if headers.get("origin", f"http://{hosts[0]}") not in (f"http://{hosts[0]}", f"https://{hosts[0]}"):""",
        "if not hosts[0]:",
        "tests/admin/test_app.py -k only_the_page",
    ),
    Mistake(
        "wrong admin secrets can be guessed as fast as one likes",
        "authz/admin/guard.py",
        "self._forgiven = max(now, self._forgiven) + FAILURE_SECONDS",
        "self._forgiven = now",
        "tests/admin/test_app.py -k guessing",
    ),
    Mistake(
        "whoever looks at the admin page has the directory asked about any name",
        "authz/admin/explain.py",
        "        if not self._question.token and directory is not None",
        "        if self._question.token and directory is not None",
        "tests/admin/test_app.py -k anybody_may_type",
    ),
    Mistake(
        "a worker that is started again lets in who is suspended",
        "authz/admin/workers.py",
        "            link.tell(self._orders.in_force())\n",
        "            link.tell([])\n",
        "tests/admin/test_workers.py -k starts_later",
    ),
    Mistake(
        "a stream that opens late escapes its suspension",
        "authz/authorizer.py",
        "elif self._suspensions.concerns(principal):",
        "elif not principal:",
        "tests/test_suspension.py",
    ),
    Mistake(
        "whoever connects to the admin page and says nothing stays for ever",
        "authz/envoy/operations/web.py",
        "http=partial(_Connection, connection_seconds),",
        'http="h11",',
        "tests/envoy/test_web.py -k nothing",
    ),
    Mistake(
        "whoever does not read what the admin page answers stays for ever",
        "authz/envoy/operations/web.py",
        "self.loop.call_later(2 * seconds, self._abort),",
        "",
        "tests/envoy/test_web.py -k drops",
    ),
    Mistake(
        "connections to the admin page take every file descriptor",
        "authz/envoy/operations/web.py",
        "if len(self.connections) > _MOST_CONNECTIONS:",
        "if not self.connections:",
        "tests/envoy/test_web.py -k bounded",
    ),
    Mistake(
        "an answer that is too long ends a worker",
        "authz/admin/link.py",
        "if len(said) > _MAX_LINE:",
        "if not said:",
        "tests/admin/test_workers.py -k too_long",
    ),
    Mistake(
        "a descriptor set that was made without options takes the policy away",
        "authz/envoy/rules.py",
        "if before is not None and before.has_protos and (policy is None or not policy.has_protos):",
        "if before is not None and not before.name:",
        "tests/test_reload.py -k lost",
    ),
    # ---- The engines ----
    Mistake(
        "the native engine closes before it has answered",
        "authz/envoy/serving/native_engine.py",
        "quiet = 0 if self._busy or self._servicer.pending else quiet + 1",
        "quiet += 1",
        "tests/envoy/test_engines.py -k deciding",
    ),
    Mistake(
        "a watcher that has not read is told nothing later",
        "authz/envoy/serving/native_engine.py",
        "if not all(told):",
        "if not told:",
        "tests/envoy/test_engines.py -k does_not_read",
    ),
    Mistake(
        "a flow that was started keeps to itself what it raises",
        "authz/flow.py",
        "except BaseException as raised:",
        "except Exception as raised:",
        "tests/test_flow.py -k whatever_a_started",
    ),
    # ---- Questions and what callers share ----
    Mistake(
        "whatever keeps the issuer from being asked has the signature believed",
        "authz/introspection.py",
        'if assurance.if_unavailable == "deny" or not error.is_outage:',
        'if assurance.if_unavailable == "deny":',
        "tests/test_introspection.py",
    ),
    Mistake(
        "the time in which a question waits for its turn counts as the issuer's",
        "authz/introspection.py",
        "if question.asked_at is None:\n            return OverloadedError()",
        "if question.asked_at is None:\n            return self._unavailable(is_outage=True)",
        "tests/test_introspection.py",
    ),
    Mistake(
        "a caller's deadline counts as an outage",
        "authz/introspection.py",
        "is_outage=self._clock.monotonic() - question.asked_at >= _PATIENCE",
        "is_outage=self._clock.monotonic() - question.asked_at >= 0.0",
        "tests/test_introspection.py -k deadline",
    ),
    Mistake(
        "an issuer that asks for patience counts as down",
        "authz/token_status.py",
        "is_outage=answer.status >= _SERVER_ERROR",
        "is_outage=True",
        "tests/test_introspection.py",
    ),
    Mistake(
        "a failure beside one for too many questions counts as an outage",
        "authz/introspection.py",
        "is_outage = status.is_outage and (self._is_outage or started >= self._backoff.retry_at)",
        "is_outage = status.is_outage",
        "tests/test_introspection.py -k asked_for_patience",
    ),
    Mistake(
        "a process without file descriptors takes the issuer for down",
        "authz/transport.py",
        'TransportError("connect" if _has_descriptor() else "exhausted")',
        'TransportError("connect")',
        "tests/test_transport.py -k descriptors",
    ),
    Mistake(
        "a thread that finds no room takes that for an outage",
        "authz/flow.py",
        "        raise OverloadedError",
        "        raise TimeoutError",
        "tests/test_flow.py tests/test_directory.py",
    ),
    Mistake(
        "a caller's deadline chooses the older record of its organization",
        "authz/flow.py",
        "flow.throw(DeadlineError() if is_cut_short else error)",
        "flow.throw(error)",
        "tests/test_directory.py -k haste",
    ),
    Mistake(
        "one organization takes every turn at the issuer",
        "authz/shares.py",
        "            self._queues.move_to_end(key)",
        "            self._queues.move_to_end(key, last=False)",
        "tests/test_shares.py tests/test_introspection.py -k turns",
    ),
    Mistake(
        "the flood of one organization drives out the question of another",
        "authz/shares.py",
        "longest = max(self._queues,",
        "longest = min(self._queues,",
        "tests/test_shares.py -k latest",
    ),
    Mistake(
        "one caller takes every place",
        "authz/shares.py",
        "if held >= self._places - self.taken:",
        "if self.taken >= self._places:",
        "tests/test_shares.py tests/envoy/test_servicer.py",
    ),
    Mistake(
        "all organizations share the places of one",
        "authz/introspection.py",
        "    return principal.issuer, principal.org_id",
        "    return principal.issuer",
        "tests/test_introspection.py",
    ),
    Mistake(
        "made-up kids wait without a bound",
        "authz/remote_keys.py",
        "_MAX_WAITING = 256",
        "_MAX_WAITING = 1_000_000",
        "tests/test_remote_keys.py -k whatever_drives_it",
    ),
    Mistake(
        "a kid that may not be looked up is not found",
        "authz/remote_keys.py",
        "else KeyUndecidedError\n        return error(",
        "else KeyNotFoundError\n        return error() if error is KeyNotFoundError else error(",
        "tests/test_remote_keys.py tests/test_simulation.py",
    ),
    Mistake(
        "a key that was taken back is undecided",
        "authz/remote_keys.py",
        "if kid in self._gone and not self._backoff.is_failing:",
        "if kid is self._gone:",
        "tests/test_remote_keys.py -k taken_back",
    ),
    Mistake(
        "what is ordered while a call waits is not in force for it",
        "authz/authorizer.py",
        "(yield from self.authorize(call, evidence))\n            self.check_standing(principal)",
        "(yield from self.authorize(call, evidence))",
        "tests/test_after_waiting.py",
    ),
    Mistake(
        "a policy that comes while a call waits is not in force for it",
        "authz/authorizer.py",
        "            if self._in_force is not in_force:",
        "            if self._in_force is None:",
        "tests/test_after_waiting.py -k policy",
    ),
    Mistake(
        "a token that expires while a call waits is good",
        "authz/authorizer.py",
        "            yield from self._check_caller(call, policy)\n",
        "",
        "tests/test_after_waiting.py",
    ),
    Mistake(
        "a yes is kept in store until the request comes",
        "interceptors/isolation.py",
        "        hearing.confirm(principal)\n",
        "",
        "tests/interceptors/test_late_requests.py",
    ),
    Mistake(
        "the handler of a stream begins although it must end",
        "interceptors/aio/behaviours.py",
        "if stream.refusal is not None and not inspect.isasyncgenfunction(self.func):",
        "if stream.refusal is None and stream is None:",
        "tests/interceptors/test_late_requests.py -k read-write",
    ),
)
