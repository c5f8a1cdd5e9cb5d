"""What the headers of one request say, and which of them its handler may see."""

from hypothesis import given
from hypothesis import strategies as st

from authz.call.metadata import TrustedMetadata, is_forged
from authz.call.principal import ANONYMOUS, Principal
from authz.http.headers import RawHeaders, Sorting, Telling, as_bytes

TRUSTED = TrustedMetadata()

names = st.sampled_from(sorted({*TRUSTED.removed, *TRUSTED.prefixed})) | st.sampled_from(
    ["authorization", "content-type", "x-trace", "accept", "x-org", "org-id", "cookie"]
)
spelled = st.tuples(names, st.sampled_from([str.lower, str.upper, str.title])).map(lambda both: both[1](both[0]))
raw = st.lists(st.tuples(spelled.map(str.encode), st.binary(max_size=8)), max_size=12)


@given(st.lists(raw, max_size=4))
def test_no_spelling_of_a_reserved_name_is_kept(requests):
    sorting = Sorting(TRUSTED)
    for headers in requests:
        found = sorting.sort(headers)

        kept = [header for header in headers if not is_forged(header[0].decode().lower(), TRUSTED.reserved)]
        assert list(found.kept) == kept
        assert found.credentials == [v.decode("latin-1") for n, v in headers if n.lower() == b"authorization"]
        assert found.kinds == [v.decode("latin-1") for n, v in headers if n.lower() == b"content-type"]
        assert found.size == sum(len(n) + len(v) for n, v in headers)


def test_copy_of_a_name_that_is_known_is_seen():
    sorting = Sorting(TRUSTED)
    first, second = (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")
    sorting.sort([first])

    found = sorting.sort([first, second])

    assert (found.kept, found.credentials) == ([first, second], ["Bearer a", "Bearer b"])


def test_names_that_callers_make_up_take_bounded_memory():
    sorting = Sorting(TRUSTED)
    for number in range(3000):
        sorting.sort([(b"x-%d" % number, b""), (b"x-%d" % number * 100, b"")])

    known = sorting._harmless  # noqa: SLF001 - the memory itself
    assert (len(known), max(map(len, known)) <= 64) == (1024, True)
    assert sorting.sort([(b"x-org-id", b"org_FORGED"), (b"x-9999", b"1")]).kept == [(b"x-9999", b"1")]


def test_handler_is_told_its_caller_and_no_other_that_has_the_same_address():
    telling = Telling(TRUSTED, as_bytes)
    for number in range(100):
        # Each may get the memory of the one before.
        principal = Principal(org_id=f"org_{number}", client_id="c", subject="c")
        assert (b"x-org-id", b"org_%d" % number) in telling.headers(principal)
        del principal

    assert list(telling.headers(ANONYMOUS)) == []


def test_rules_read_every_header_in_lower_case():
    headers = RawHeaders([(b"X-Mode", b"fast"), (b"x-latin", b"caf\xe9")])

    assert (len(headers), list(headers)) == (2, [("x-mode", "fast"), ("x-latin", "café")])
