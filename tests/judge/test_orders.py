"""Orders of the operator: which of several counts, for whom, and for how long."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.call import Call
from authz.call.principal import Principal
from authz.errors import AuthzError, ConfigError
from authz.issuer.verifier import Verifier
from authz.judge.authorizer import Authorizer
from authz.judge.orders.book import LIFTED_SECONDS, OrderBook
from authz.judge.orders.operator import listing
from authz.judge.orders.order import MAX_NAME, MAX_TEXT, MICROSECONDS, Order, Verb
from authz.judge.orders.standing import Standing
from authz.runtime.flow import run
from tests.doubles import CLIENT, ISSUER, NOW, ORG, ManualClock, m2m_claims

CLIENTS = {"client_id": CLIENT}
RENEW = Order("renew", "organization", ORG, until=NOW + 3600, source="workos", at=round(NOW * MICROSECONDS))
WHAT = [CLIENTS, {"org_id": ORG}, {"key_id": "ec-1"}]


@pytest.fixture
def authorizer(verifier: Verifier) -> Authorizer:
    return Authorizer(verifier)


@pytest.fixture
def ask(authorizer: Authorizer, ec_key: Any) -> Any:
    """Return a function that says why a token with changed claims is refused; empty if it is not."""

    def asking(**changes: Any) -> str:
        token = ec_key.sign(m2m_claims(NOW, **changes))
        try:
            run(authorizer.authorize(Call(method="/a.B/C", metadata=[("authorization", f"Bearer {token}")])))
        except AuthzError as error:
            return error.reason
        return ""

    return asking


# ---- Only older tokens ----


@pytest.mark.parametrize("what", WHAT, ids=str)
def test_only_older_tokens_are_refused_and_the_caller_may_get_a_new_one(
    authorizer: Authorizer, ask: Any, what: Any
) -> None:
    authorizer.revoke(issued_before=NOW - 10, **what)

    assert [ask(iat=NOW - ago) for ago in (60, 11, 10, 0)] == ["token_inactive", "token_inactive", "", ""]


def test_token_that_does_not_say_when_it_was_issued_counts_as_older() -> None:
    order = Order("revoke", "client", CLIENT, issued_before=NOW)

    assert order.concerns(None, NOW)


@pytest.mark.parametrize("times", [(NOW - 10, NOW - 50), (NOW - 50, NOW - 10)], ids=["later first", "earlier first"])
def test_of_two_kinds_of_orders_every_order_counts(
    authorizer: Authorizer, ask: Any, times: tuple[float, float]
) -> None:
    authorizer.revoke(client_id=CLIENT, issued_before=times[0])
    authorizer.revoke(client_id=CLIENT, issued_before=times[1], issuer=ISSUER)

    assert (ask(iat=NOW - 11), ask(iat=NOW - 10)) == ("token_inactive", "")


def test_latest_order_about_a_client_counts_even_if_it_refuses_fewer(authorizer: Authorizer, ask: Any) -> None:
    authorizer.revoke(client_id=CLIENT)
    authorizer.revoke(client_id=CLIENT, issued_before=NOW - 10)

    assert ask() == ""


# ---- Only for a time ----


@pytest.mark.parametrize("what", WHAT, ids=str)
def test_revocation_lapses(authorizer: Authorizer, ask: Any, clock: ManualClock, what: Any) -> None:
    authorizer.revoke(until=NOW + 60, **what)
    before = ask()
    clock.advance(60)

    assert (before, ask()) == ("token_inactive", "")
    assert authorizer.standing.revoked_clients == set()


def test_suspension_lapses(authorizer: Authorizer, ask: Any, clock: ManualClock) -> None:
    authorizer.suspend(org_id=ORG, until=NOW + 60)
    before = ask(), authorizer.standing.suspended_organizations
    clock.advance(60)

    assert (before, ask()) == (("organization_suspended", {ORG}), "")
    assert authorizer.standing.suspended_organizations == set()


# ---- The book ----


def test_latest_order_about_a_subject_counts_in_whichever_order_they_come() -> None:
    orders = [
        Order("revoke", "client", "c", at=1),
        Order("reinstate", "client", "c", at=2),
        Order("revoke", "client", "c", at=3, reason="again"),
    ]

    for told in (orders, orders[::-1], [orders[2], orders[0], orders[1]]):
        book = OrderBook()
        for order in told:
            book.take(order)
        assert list(book) == [orders[2]]


def test_new_order_comes_after_every_known_one_though_the_clock_is_behind() -> None:
    book = OrderBook()
    book.take(Order("revoke", "client", "c", at=10 * MICROSECONDS))

    assert book.timed(Order("reinstate", "client", "c"), now=3.0).at == 10 * MICROSECONDS + 1
    assert book.timed(Order("reinstate", "client", "other"), now=3.0).at == 3 * MICROSECONDS


def test_order_that_was_taken_back_is_remembered_for_a_month_and_then_forgotten() -> None:
    book = OrderBook()
    book.take(Order("reinstate", "client", "c", at=MICROSECONDS))

    assert book.forget(LIFTED_SECONDS) == []
    assert [order.id for order in book.forget(1 + LIFTED_SECONDS)] == ["c"]
    assert len(book) == 0


def test_token_that_was_reinstated_stays_so_when_that_is_forgotten() -> None:
    book = OrderBook()
    book.take(Order("revoke", "token", "jti_1", until=NOW + 99 * 86_400))
    book.take(Order("reinstate", "token", "jti_1", at=round(NOW * MICROSECONDS)))

    assert [order.verb for order in book.forget(NOW + LIFTED_SECONDS)] == ["reinstate"]

    assert (len(book), list(book.tokens)) == (0, [])


def test_order_that_stands_is_never_forgotten() -> None:
    book = OrderBook()
    book.take(Order("suspend", "organization", "o", at=1))

    assert book.forget(8e9) == []
    assert len(book) == 1


def test_renewal_refuses_no_caller_and_is_forgotten_as_soon_as_it_lapses(authorizer: Authorizer, ask: Any) -> None:
    authorizer.operator.carry_out([RENEW])

    assert (ask(), RENEW.is_refusing, RENEW.is_lifting) == ("", False, False)
    assert authorizer.operator.book.forget(NOW + 3599) == []
    assert authorizer.operator.book.forget(NOW + 3600) == [RENEW]


def test_renewal_takes_nothing_back(authorizer: Authorizer, ask: Any) -> None:
    authorizer.suspend(org_id=ORG)
    authorizer.revoke(org_id=ORG)
    authorizer.operator.carry_out([RENEW._replace(at=RENEW.at + 10**9)])

    assert ask() == "token_inactive"
    assert authorizer.standing.suspended_organizations == {ORG}


def test_orders_about_one_name_are_all_taken_back() -> None:
    book = OrderBook()
    for issuer in ("", "https://a.example", "https://b.example"):
        book.take(Order("revoke", "client", "c", issuer, at=1))
        book.take(Order("revoke", "token", "t", issuer, until=9e8))

    lifted = [book.spelled_out(Order("reinstate", kind, name)) for kind, name in (("client", "c"), ("token", "t"))]

    assert [[order.issuer for order in orders] for orders in lifted] == [
        ["", "https://a.example", "https://b.example"]
    ] * 2
    assert book.spelled_out(Order("revoke", "client", "c")) == [Order("revoke", "client", "c")]
    assert book.spelled_out(Order("reinstate", "client", "c", "https://a.example"))[0].issuer == "https://a.example"


# ---- As text ----


@pytest.mark.parametrize(
    "order",
    [
        Order("revoke", "client", "c", at=1),
        Order("revoke", "key", "k", "https://a.example", 5.5, 7, 'because \u2028 "so"', "me", at=9),
        Order("suspend", "organization", "o", until=1.0, at=2),
        Order("revoke", "token", "\N{SNOWMAN}", until=3.0),
        Order("renew", "organization", "o", until=3.0, source="workos", at=2),
    ],
    ids=str,
)
def test_order_is_read_as_it_was_written(order: Order) -> None:
    assert Order.parse(order.text(), order.at) == order
    assert Order.parse(order.text().replace(b"{", b'{"later":[1],', 1), order.at) == order


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"verb":"revoke","kind":"client"}',
        b'{"verb":"revoke","kind":"client","id":""}',
        b'{"verb":"revoke","kind":"client","id":7}',
        b'{"verb":"revoke","kind":"client","id":"\\ud800"}',
        b'{"verb":"revoke","kind":["client"],"id":"c"}',
        b'{"verb":"forget","kind":"client","id":"c"}',
        b'{"verb":"suspend","kind":"client","id":"c"}',
        b'{"verb":"suspend","kind":"organization","id":"o","issuer":"https://a.example"}',
        b'{"verb":"suspend","kind":"organization","id":"o","issued_before":1}',
        b'{"verb":"revoke","kind":"token","id":"t","issued_before":1}',
        b'{"verb":"reinstate","kind":"client","id":"c","until":1}',
        b'{"verb":"revoke","kind":"client","id":"c","until":true}',
        b'{"verb":"revoke","kind":"client","id":"c","until":"1"}',
        b'{"verb":"revoke","kind":"client","id":"c","until":NaN}',
        b'{"verb":"revoke","kind":"client","id":"c","until":-1}',
        b'{"verb":"revoke","kind":"client","id":"c","until":1e300}',
        b'{"verb":"revoke","kind":"client","id":"c","issuer":"a b"}',
        b'{"verb":"revoke","kind":"client","id":"c","reason":{}}',
        b'{"verb":"revoke","kind":"client","id":"%s"}' % (b"c" * (MAX_NAME + 1)),
        b'{"verb":"revoke","kind":"client","id":"c","by":"%s"}' % (b"c" * (MAX_TEXT + 1)),
        b'{"verb":"revoke","kind":"client","id":"c","source":"WorkOS"}',
        b'{"verb":"revoke","kind":"client","id":"c","source":"work os"}',
        b'{"verb":"revoke","kind":"client","id":"c","source":7}',
        b'{"verb":"renew","kind":"organization","id":"o"}',
        b'{"verb":"renew","kind":"client","id":"c","until":1}',
        b'{"verb":"renew","kind":"organization","id":"o","until":1,"issuer":"https://a.example"}',
        b'{"verb":"revoke","kind":"client","id":"c","source":"%s"}' % (b"c" * 33),
    ],
    ids=lambda text: text[:70],
)
def test_what_is_no_order_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError):
        Order.parse(text, 1)


@pytest.mark.parametrize(("source", "origin"), [("", "operator"), ("workos", "workos"), ("shared-signals", "other")])
def test_order_says_what_it_comes_from_in_one_of_few_words(source: str, origin: str) -> None:
    order = Order("revoke", "client", "c", source=source, at=1)

    assert (order.origin, Order.parse(order.text(), 1)) == (origin, order)


# ---- Replicas that have heard the same ----


def _orders(verbs: tuple[Verb, ...], kind: Any) -> st.SearchStrategy[Order]:
    revoked = st.builds(
        Order,
        st.sampled_from(verbs),
        st.just(kind),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", ISSUER]) if kind != "organization" else st.just(""),
        issued_before=st.none(),
        until=st.none(),
        reason=st.sampled_from(["", "x", "\u00e9", "Z"]),
        by=st.just(""),
        at=st.integers(1, 4),
    )
    until = st.sampled_from([NOW + 60, NOW + 5 * 3600, NOW + 9 * 3600])
    return st.tuples(revoked, until).map(lambda one: one[0] if one[0].is_lifting else one[0]._replace(until=one[1]))


LISTED = st.builds(
    Order,
    st.just("revoke"),
    st.just("token"),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["", ISSUER]),
    issued_before=st.none(),
    until=st.sampled_from([NOW + 60, NOW + 5 * 3600, NOW + 9 * 3600]),
    reason=st.just(""),
    by=st.just(""),
    at=st.just(0),
)
ANY = st.one_of(
    LISTED,
    _orders(("revoke", "reinstate"), "token"),
    _orders(("revoke", "reinstate"), "client"),
    _orders(("suspend", "resume"), "organization"),
)


def _all(standing: Standing) -> list[Order]:
    return [*standing.book, *(listing(name, end) for name, end in standing.book.tokens)]


def _verdicts(standing: Standing) -> list[tuple[str, str]]:
    callers = [
        Principal(org_id=name, client_id=name, subject=name, token_id=token, key_id="k", issuer=issuer)
        for name in ("a", "b")
        for token in ("a", "b", "c", "")
        for issuer in (ISSUER, "https://other.example")
    ]
    refusals = [standing.refusal(one) for one in callers]
    return [("", "") if error is None else (error.reason, error.order_source) for error in refusals]


@given(st.data(), st.lists(ANY, max_size=12))
def test_replicas_agree_in_whichever_order_they_hear_and_from_whichever_side(data: Any, orders: list[Order]) -> None:
    one, other, third = Standing(), Standing(), Standing()
    for order in orders:
        one.take([order])
    other.take(data.draw(st.permutations([*orders, *orders])))
    # Each half is heard by one replica, which later hears what another one knows.
    middle = data.draw(st.integers(0, len(orders)))
    halves = Standing(), Standing()
    halves[0].take(orders[:middle])
    halves[1].take(orders[middle:])
    for half in data.draw(st.permutations(halves)):
        third.take(_all(half))
    halves[0].take(_all(halves[1]))

    for standing in (other, third, halves[0]):
        assert set(_all(standing)) == set(_all(one))
        assert _verdicts(standing) == _verdicts(one)
