import contextvars
import dataclasses
import threading
from types import MappingProxyType

import pytest

from authz.call.call import MAX_ENTRIES, MAX_METADATA_BYTES, MAX_METHOD, Call, Entry, check_size
from authz.call.principal import ANONYMOUS, Principal, current_principal, set_current_principal
from authz.errors import PermissionDeniedError

ALICE = Principal(org_id="org_a", client_id="client_a", subject="client_a")
BOB = Principal(org_id="org_b", client_id="client_b", subject="client_b")


def in_empty_context(function):
    return contextvars.Context().run(function)


def test_a_principal_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALICE.org_id = "org_b"


def test_a_principal_can_be_hashed_whatever_its_claims_hold():
    nested = Principal(org_id="org_a", client_id="", subject="", claims=MappingProxyType({"roles": [{}]}))

    assert len({nested, ALICE}) == 2


def test_the_claims_are_not_in_the_repr():
    assert "secret" not in repr(Principal(org_id="o", client_id="c", subject="c", claims={"email": "secret"}))


def test_anonymous_has_no_organization():
    assert (ANONYMOUS.org_id, ANONYMOUS.client_id, dict(ANONYMOUS.claims)) == ("", "", {})


def test_outside_an_rpc_there_is_no_principal():
    with pytest.raises(LookupError, match="does not run inside an RPC"):
        in_empty_context(current_principal)


def test_the_principal_stays_for_the_rest_of_the_context():
    def rpc():
        set_current_principal(ALICE)
        return current_principal()

    assert in_empty_context(rpc) is ALICE


def test_contexts_do_not_see_each_other():
    first, second = contextvars.Context(), contextvars.Context()
    first.run(set_current_principal, ALICE)
    second.run(set_current_principal, BOB)

    assert first.run(current_principal) is ALICE


def test_another_thread_has_no_principal():
    seen = []

    def other():
        try:
            seen.append(current_principal())
        except LookupError:
            seen.append(None)

    def rpc():
        set_current_principal(ALICE)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    in_empty_context(rpc)

    assert seen == [None]


def test_entries_are_pairs_with_names():
    entry = Entry("x-org-id", "org_a")

    assert (entry.key, entry.value) == ("x-org-id", "org_a") == entry


# ---- Size ----


class Counted:
    """Metadata that counts how many of its entries are read."""

    def __init__(self, *entries):
        self._entries = entries
        self.seen = 0

    def __len__(self):
        return len(self._entries)

    def __iter__(self):
        for entry in self._entries:
            self.seen += 1
            yield entry


@pytest.mark.parametrize(
    ("method", "metadata"),
    [
        pytest.param("/" + "m" * (MAX_METHOD - 1), [], id="path"),
        pytest.param("/s/m", [("x", "")] * MAX_ENTRIES, id="entries"),
        pytest.param("/s/m", [("x", "v" * (MAX_METADATA_BYTES - 1))], id="value"),
        pytest.param("/s/m", [("x-bin", b"v" * (MAX_METADATA_BYTES - 5))], id="bytes"),
        pytest.param("/s/m", [("x", "v" * 99)] * 512, id="together"),
    ],
)
def test_a_call_may_be_large(method, metadata):
    check_size(Call(method, metadata))


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        pytest.param(Call("/" + "m" * MAX_METHOD, Counted(("x", ""))), 0, id="path"),
        pytest.param(Call("/s/m", Counted(*[("x", "")] * (MAX_ENTRIES + 1))), 0, id="entries"),
        pytest.param(Call("/s/m", Counted(*[("x", "")] * 80_000)), 0, id="many-entries"),
        pytest.param(Call("/s/m", Counted(("x", "v" * MAX_METADATA_BYTES))), 1, id="value"),
        pytest.param(Call("/s/m", Counted(("n" * MAX_METADATA_BYTES, "v"))), 1, id="name"),
        pytest.param(Call("/s/m", Counted(("x-bin", b"v" * MAX_METADATA_BYTES))), 1, id="bytes"),
        pytest.param(Call("/s/m", Counted(*[("x", "v" * 600)] * 500)), 500, id="together"),
        pytest.param(Call("/s/m", Counted(("x", "")), size=MAX_METADATA_BYTES + 1), 0, id="told-by-the-door"),
    ],
)
def test_a_call_that_is_too_large_is_refused_by_its_size_alone(call, seen):
    with pytest.raises(PermissionDeniedError) as caught:
        check_size(call)

    assert caught.value.reason == "request_malformed"
    assert call.metadata.seen == seen
