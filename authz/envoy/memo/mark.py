"""What a yes tells Envoy of the calls like it, so that Envoy need not ask about them: the mark.

It is dynamic metadata of the filter ext_authz, which the script (``memo.lua``) reads::

    memo:   {seconds, generation, public, verbs, tenths}   how long, under which generation only, whether for every
                                                           caller, whether a header that may replace the HTTP method
                                                           matters, and when such a call must end, if it must
    caller: {headers: [k, v, …], about, told}              what to set on the request, and what to tell of it
"""

import functools
import json
import math
from weakref import ref

from authz.call.call import Call
from authz.call.memory import Memory
from authz.call.metadata import TrustedMetadata
from authz.call.principal import Principal
from authz.decisions.decision import Evidence
from authz.envoy.check.deadline import tenths_of
from authz.envoy.v3.external_auth_pb2 import CheckResponse
from authz.http.headers import text_of
from authz.judge.authorizer import Authorizer

_REMEMBERED = 10_000


class Memo:
    """Add the mark to answers.

    Args:
        authorizer: the judge.
        seconds: how long Envoy may remember an answer at the most.

    Attributes:
        generation: the one that Envoy has been told, or is told next. What belongs to another is forgotten. Read it
            before a verdict, and change it after what it stands for is in force. Empty: Envoy is to remember nothing.
        offered: how many answers had a mark.

    """

    def __init__(self, authorizer: Authorizer, seconds: float) -> None:
        self._lasting, self._trusted, self._seconds = authorizer.lasting, authorizer.trusted, seconds
        self.generation = ""
        self.offered = 0
        self._callers = Memory[tuple[int, str, str, str], tuple[ref[Principal], bytes]](_REMEMBERED)

    def begin(self, generation: str) -> None:
        """Let answers belong to another generation, or if that is empty, to none."""
        self.generation = generation

    def mark(self, call: Call, evidence: Evidence, generation: str, ends: float | None = None) -> bytes:
        """Return what is to be added to the serialized answer to a call that is allowed; nothing if calls may differ.

        Args:
            call: the call.
            evidence: what the verdict rests on.
            generation: the one before the verdict.
            ends: in how many seconds the call must end; ``None`` if it may go on.

        """
        if not generation or evidence.source == "signature":
            # A token that is seen for the first time may never come again: it costs as much as without any memory.
            return b""
        seconds = math.floor(min(self._seconds, self._lasting.seconds(call, evidence)))
        if seconds < 1:
            return b""
        policy = None if evidence.in_force is None else evidence.in_force.policy
        digest = "" if policy is None or not evidence.policy else policy.digest
        self.offered += 1
        # Fields of serialized messages add up, so what was prepared for a caller stays as it is.
        caller = self._caller(evidence.principal, evidence.policy, digest, evidence.rule)
        is_public, tenths = evidence.source == "public", 0 if ends is None else tenths_of(ends)
        has_verbs = policy is not None and bool(policy.verbs)
        return caller + _holds(seconds, generation, tenths, is_public=is_public, has_verbs=has_verbs)

    def _caller(self, principal: Principal, policy: str, digest: str, rule: str) -> bytes:
        key = (id(principal), policy, digest, rule)
        known = self._callers.get(key)
        # By identity. No principal lives longer for it, so another may have its id.
        if known is not None and known[0]() is principal:
            return known[1]
        written = _caller(principal, self._trusted, policy, digest, rule)
        self._callers.remember(key, (ref(principal), written))
        return written


# There are few: most answers hold for the same time, and a generation lasts.
@functools.lru_cache(1024)
def _holds(seconds: int, generation: str, tenths: int, *, is_public: bool, has_verbs: bool) -> bytes:
    response = CheckResponse()
    memo: dict[str, float | str | bool] = {"seconds": seconds, "generation": generation}
    if is_public:
        memo["public"] = True
    elif has_verbs:
        memo["verbs"] = True
    if tenths:
        memo["tenths"] = tenths
    response.dynamic_metadata.update({"memo": memo})
    return response.SerializeToString()


def _caller(principal: Principal, trusted: TrustedMetadata, policy: str, digest: str, rule: str) -> bytes:
    headers = [text for entry in trusted.entries(principal) for text in (entry.key, text_of(entry.value))]
    about = {
        "organization": principal.org_id,
        "client": principal.client_id,
        "subject": principal.subject,
        "scopes": " ".join(sorted(principal.scopes)),
        "token_id": principal.token_id,
        "key_id": principal.key_id,
        "issuer": principal.issuer,
        "policy": policy,
        "policy_digest": digest,
        "rule": rule,
    }
    response = CheckResponse()
    # Not update(), which takes twice as long.
    caller = response.dynamic_metadata.fields["caller"].struct_value.fields
    listed, said = caller["headers"].list_value, caller["about"].struct_value
    # Also where they are empty, as for a public method.
    listed.SetInParent()
    said.SetInParent()
    for header in headers:
        listed.values.add().string_value = header
    about = {name: text for name, text in about.items() if text}
    for name, text in about.items():
        said.fields[name].string_value = text
    # As one text, which Envoy need not take apart to tell it.
    caller["told"].string_value = json.dumps(about)
    return response.SerializeToString()
