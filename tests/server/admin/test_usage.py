"""The page tells how much one organization uses, from the store, and nothing of others."""

import time
from collections.abc import Callable, Iterator

import pytest

from authz.decisions.usage import DAY, HOUR, OTHER, Row
from authz.judge.authorizer import Authorizer
from authz.server.admin.activity import Activity
from authz.server.admin.usage import MAX_METHODS, Used
from authz.store.connection import Store
from authz.store.usage.counts import UsageStore
from tests.server.admin.test_app import Page
from tests.store.engines import Engine

NOW = int(time.time()) // HOUR * HOUR


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("valkey") as engine:
        yield engine


@pytest.fixture
def page(verifier) -> Callable[[Store | None], Page]:
    def page(store: Store | None) -> Page:
        used = Used(None if store is None else UsageStore(store), 35, pause=0.0)
        activity = Activity()
        return Page(Authorizer(verifier, observers=[activity]), activity, used=used)

    return page


def row(method: str = "/a", verdict: str = "allowed", hours: int = 0, organization: str = "org_a") -> Row:
    return Row(NOW - hours * HOUR, organization, "c", method, verdict, "envoy")


def test_hours_days_and_methods_of_one_organization_are_told(engine: Engine, page):
    usage = UsageStore(engine.store())
    today = {row(): 5, row("/b"): 7, row(verdict="denied"): 2, row(OTHER, "denied"): 1, row(organization="org_b"): 99}
    usage.add("one", 1, today)
    usage.add("one", 2, {row(hours=3): 4})
    usage.add("one", 3, {row(hours=72): 11})
    told = page(engine.store()).get("/api/usage?organization=org_a").json()

    assert told["hours"] == [[NOW - 3 * HOUR, 4, 0], [NOW, 12, 3]]
    days = {begin: (allowed, refused) for begin, allowed, refused in told["days"]}
    assert sum(allowed for allowed, _ in days.values()) == 27
    assert days[(NOW - 72 * HOUR) // DAY * DAY] == (11, 0)
    assert told["methods"] == [["/a", 11], ["/b", 7], [OTHER, 1]]


def test_the_methods_called_most_are_told(engine: Engine, page):
    UsageStore(engine.store()).add("one", 1, {row(f"/{number}"): number + 1 for number in range(20)})
    told = page(engine.store()).get("/api/usage?organization=org_a").json()

    assert told["methods"] == [[f"/{number}", number + 1] for number in range(19, 19 - MAX_METHODS, -1)]


def test_an_organization_that_has_not_called_has_used_nothing(engine: Engine, page):
    told = page(engine.store()).get("/api/usage?organization=org_c").json()

    assert (told["hours"], told["days"], told["methods"]) == ([], [], [])


@pytest.mark.parametrize("query", ["", "?organization=", "?organization=a%20b", f"?organization={'x' * 300}"])
def test_a_question_about_none_is_not_understood(page, query: str):
    assert page(None).get(f"/api/usage{query}").status_code == 400


def test_without_a_store_there_is_nothing_to_tell(page):
    assert page(None).get("/api/usage?organization=org_a").json() == {"hours": None}


def test_a_store_that_is_away_is_said(page, tmp_path):
    answer = page(Store(f"unix:{tmp_path}/nothing")).get("/api/usage?organization=org_a")

    assert answer.status_code == 503
    assert answer.json() == {"error": "The store does not say how much is used. Try again."}
