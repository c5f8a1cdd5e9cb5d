"""What an operator writes for a route, read into requirements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.call.requirements import Requirements
from authz.envoy.check.route import requirements_from
from tests.doubles import AUDIENCE


@pytest.mark.parametrize(
    ("extensions", "requirements"),
    [
        ({"audience": AUDIENCE}, Requirements(audience=AUDIENCE)),
        ({"scopes": "ledger:read"}, Requirements(scopes=frozenset({"ledger:read"}))),
        ({"scopes": " a  b\n"}, Requirements(scopes=frozenset({"a", "b"}))),
        ({"policy": "partners"}, Requirements(policy="partners")),
        (
            {"audience": "x", "scopes": "a b", "policy": "p", "virtual_host": "v"},
            Requirements(audience="x", scopes=frozenset({"a", "b"}), policy="p"),
        ),
    ],
)
def test_requirements_are_read(extensions, requirements):
    assert requirements_from(extensions) == requirements


@pytest.mark.parametrize("name", ["virtual_host", "opa.policy", "x-scopes", "scoped", "descope", "my_audience", ""])
def test_names_of_others_ask_nothing(name):
    assert requirements_from({name: "a"}) is None


@pytest.mark.parametrize(
    "name",
    [
        "scope",
        "Scopes",
        "SCOPE",
        " scopes",
        "scopes:",
        "audiences",
        "Audience",
        "policies",
        "Policy",
        "authz.scopes",
        "authz.anything",
        "authz-scopes",
        "AUTHZ_POLICY",
    ],
)
def test_names_that_only_look_like_ours_are_mistakes(name):
    assert requirements_from({name: "a", "scopes": "a"}) == Requirements(mistake=name)


@pytest.mark.parametrize("name", ["audience", "scopes", "policy"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_values_that_are_empty_are_mistakes(name, value):
    assert requirements_from({name: value}) == Requirements(mistake=name)


@pytest.mark.parametrize("value", ['a "b"', "a\\", "é", "a \x00", "a\x7f", "a" * 2049, "a " * 1025])
def test_scopes_that_no_token_can_grant_are_mistakes(value):
    assert requirements_from({"scopes": value}) == Requirements(mistake="scopes")


@given(st.dictionaries(st.sampled_from(["audience", "scopes", "policy", "scope", "other"]) | st.text(), st.text()))
def test_whatever_is_named_as_ours_asks_something(extensions):
    requirements = requirements_from(extensions)

    assert (requirements is not None) >= bool({"audience", "scopes", "policy", "scope"} & extensions.keys())
    assert requirements != Requirements()
