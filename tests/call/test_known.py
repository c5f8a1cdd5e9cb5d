"""What was made of a caller is found by the very object, and lives no longer than that; nor does that live longer."""

import weakref

from authz.call.known import Known
from authz.call.principal import Principal


def principal(org_id: str = "org_a") -> Principal:
    return Principal(org_id=org_id, client_id="client", subject="client")


def test_what_was_made_is_found_by_the_same_object_only() -> None:
    known, one = Known[str](10), principal()
    known.remember(one, "made")

    assert (known.of(one), known.of(principal())) == ("made", None)


def test_no_caller_lives_longer_for_what_was_made_of_it() -> None:
    known, one = Known[str](10), principal()
    known.remember(one, "made")
    alive = weakref.ref(one)
    del one

    assert alive() is None


def test_what_was_made_of_a_caller_goes_with_it() -> None:
    known, one = Known[Principal](10), principal()
    alive = weakref.ref(known.remember(one, principal()))
    del one

    assert alive() is None


def test_what_was_made_anew_stays_when_the_old_goes() -> None:
    known, one = Known[str](10), principal()
    known.remember(one, "old")
    known.remember(one, "new")

    assert known.of(one) == "new"


def test_no_caller_is_taken_for_one_who_was_in_the_same_place() -> None:
    """Although it was not noticed that the other one is gone, such as where a signal came at that moment."""
    known, found = Known[str](1000), set[str | None]()
    known._forget = lambda _gone: None  # noqa: SLF001 - as if it had been interrupted
    places = set[int]()
    for _ in range(100):
        one = principal("org_a")
        places.add(id(one))
        known.remember(one, "of org_a")
        del one
        other = principal("org_b")
        found.add(known.of(other))
        places.add(id(other))

    assert len(places) < 200
    assert found == {None}
