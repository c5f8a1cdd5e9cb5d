"""Several issuers side by side: each judges its own tokens, by its own keys."""

import asyncio
import threading

import pytest

from authz.call.peer import Peer
from authz.demo.issuer.signing import SigningKey
from authz.errors import AuthzError, ClaimError, ConfigError, KeySetUnavailableError, PeerUnknownError
from authz.issuer.verifier import Verifier
from authz.issuer.verifiers import Verifiers
from tests.doubles import ABSENT, AUDIENCE, ISSUER, FakeIssuer, drive, m2m_claims

OTHER = "https://globex.authkit.app"
KID = "same"


@pytest.fixture(scope="module")
def keys():
    """Return two issuers' keys, which have one kid."""
    return {ISSUER: SigningKey.generate(KID, "ES256"), OTHER: SigningKey.generate(KID, "ES256")}


@pytest.fixture
def issuers(keys):
    return {url: FakeIssuer(key) for url, key in keys.items()}


@pytest.fixture
def each(issuers, clock):
    """Return a verifier for each issuer."""
    return {
        url: Verifier(
            issuer=url, audience=AUDIENCE, algorithms=["ES256"], transport=issuer.transport, clock=clock.clock
        )
        for url, issuer in issuers.items()
    }


@pytest.fixture
def verifiers(each):
    return Verifiers(*each.values(), shared_organizations=True)


@pytest.fixture
def fetches(issuers):
    return lambda: [issuer.transport.fetches for issuer in issuers.values()]


def verdict(verifiers, token):
    try:
        return verifiers.verify(token).issuer
    except AuthzError as error:
        return error.reason


@pytest.mark.parametrize("url", [ISSUER, OTHER])
def test_a_token_is_judged_by_the_issuer_that_it_names(verifiers, keys, url):
    assert verdict(verifiers, keys[url].sign(m2m_claims(iss=url))) == url


@pytest.mark.parametrize(("signer", "named"), [(ISSUER, OTHER), (OTHER, ISSUER)])
def test_no_issuer_speaks_for_another_with_the_same_kid(verifiers, keys, signer, named):
    """C8, in both directions, with keys known and not yet known."""
    forged = keys[signer].sign(m2m_claims(iss=named))
    cold = verdict(verifiers, forged)
    verifiers.warm_up()

    assert (cold, verdict(verifiers, forged)) == ("signature_invalid", "signature_invalid")


@pytest.mark.parametrize("url", [ISSUER, OTHER])
def test_a_bound_token_of_any_issuer_is_good_for_its_owner_only(verifiers, keys, url):
    """H1, with tokens not yet remembered and remembered."""
    thumbprint = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"
    bound = keys[url].sign(m2m_claims(iss=url, cnf={"x5t#S256": thumbprint}))
    for _ in range(2):
        with pytest.raises(PeerUnknownError):
            verifiers.verify(bound)
        with pytest.raises(ClaimError, match="another certificate"):
            verifiers.verify(bound, Peer())
        assert verifiers.verify(bound, Peer(certificate=thumbprint)).issuer == url
        assert asyncio.run(verifiers.averify(bound, Peer(certificate=thumbprint))).issuer == url


@pytest.mark.parametrize("url", [ISSUER, OTHER])
def test_only_the_named_issuer_is_asked_for_keys(verifiers, keys, issuers, url):
    verdict(verifiers, keys[url].sign(m2m_claims(iss=url)))

    assert {name: issuer.transport.fetches for name, issuer in issuers.items()} == {ISSUER: 0, OTHER: 0, url: 1}


def test_an_issuer_that_is_down_costs_the_other_nothing(verifiers, keys, issuers):
    issuers[OTHER].transport.down()

    assert verdict(verifiers, keys[OTHER].sign(m2m_claims(iss=OTHER))) == "key_set_unavailable"
    assert verdict(verifiers, keys[ISSUER].sign(m2m_claims())) == ISSUER


def test_unknown_kids_of_one_issuer_take_no_fetch_from_the_other(verifiers, issuers, other_key):
    verifiers.warm_up()
    for number in range(50):
        verdict(verifiers, other_key.sign(m2m_claims(iss=OTHER), {"kid": f"nobody-{number}"}))
    rotated = SigningKey.generate("rotated", "ES256")
    issuers[ISSUER].keys.append(rotated)

    assert verdict(verifiers, rotated.sign(m2m_claims())) == ISSUER


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("https://evil.example", id="stranger"),
        pytest.param(ISSUER + "/", id="D1-trailing-slash"),
        pytest.param(ISSUER.upper(), id="D1-upper-case"),
        pytest.param(ISSUER[:-1], id="D1-prefix"),
        pytest.param("", id="empty"),
        pytest.param([ISSUER], id="D1-list"),
        pytest.param([ISSUER, OTHER], id="D1-two"),
        pytest.param({ISSUER: 1}, id="D1-object"),
        pytest.param(5, id="D1-number"),
        pytest.param(None, id="D1-null"),
        pytest.param(ABSENT, id="D1-missing"),
    ],
)
def test_an_unknown_issuer_makes_nobody_fetch(verifiers, keys, fetches, issuer):
    """However well the token is signed."""
    token = keys[ISSUER].sign(m2m_claims(iss=issuer))

    assert (verdict(verifiers, token), fetches()) == ("claim_invalid", [0, 0])


@pytest.mark.parametrize(
    "token",
    [
        "",
        "garbage",
        ".",
        "..",
        "a.b",
        "a.!!.c",
        "a.e30=.c",
        "a.W10.c",
        "a.eyJpc3MiOiJhIiwiaXNzIjoiYiJ9.c",
        "é",
        "\ud800",
        "a" * 8193,
        "a.b.c.d.e",
    ],
    ids=ascii,
)
def test_garbage_makes_nobody_fetch(verifiers, fetches, token):
    assert (verdict(verifiers, token), fetches()) == ("token_malformed", [0, 0])


@pytest.mark.parametrize(
    ("header", "reason"),
    [({"alg": "none"}, "algorithm_not_allowed"), ({"kid": None}, "token_malformed"), ({"crit": []}, "token_malformed")],
    ids=str,
)
def test_the_named_issuers_rules_are_all_kept(verifiers, keys, fetches, header, reason):
    token = keys[OTHER].sign(m2m_claims(iss=OTHER), header)

    assert (verdict(verifiers, token), fetches()) == (reason, [0, 0])


def test_each_issuer_has_an_audience_of_its_own(keys, issuers, clock):
    def verifier(url, audience):
        return Verifier(
            issuer=url, audience=audience, algorithms=["ES256"], transport=issuers[url].transport, clock=clock.clock
        )

    verifiers = Verifiers(verifier(ISSUER, "ours"), verifier(OTHER, "theirs"), shared_organizations=True)

    assert verdict(verifiers, keys[ISSUER].sign(m2m_claims(aud="ours"))) == ISSUER
    assert verdict(verifiers, keys[ISSUER].sign(m2m_claims(aud="theirs"))) == "claim_invalid"


def test_a_token_is_verified_once(verifiers, keys):
    tokens = [key.sign(m2m_claims(iss=url)) for url, key in keys.items()]

    assert [verifiers.verify(token) is verifiers.verify(token) for token in tokens] == [True, True]


def test_a_remembered_token_ends_with_its_key(verifiers, keys, issuers, other_key, clock):
    token = keys[OTHER].sign(m2m_claims(iss=OTHER))
    verdict(verifiers, token)
    issuers[OTHER].keys = [other_key]
    clock.advance(280)
    # Fetches ahead; whoever comes next sees the new set.
    verdict(verifiers, token)

    assert verdict(verifiers, token) == "key_not_found"


def test_tasks_get_the_same_verdicts(verifiers, keys):
    async def scenario():
        good = await verifiers.averify(keys[OTHER].sign(m2m_claims(iss=OTHER)))
        bad = verifiers.averify(keys[OTHER].sign(m2m_claims(iss=ISSUER)))
        return good.issuer, *await asyncio.gather(bad, return_exceptions=True)

    issuer, error = asyncio.run(scenario())

    assert (issuer, error.reason) == (OTHER, "signature_invalid")


def test_threads_share_verifiers(verifiers, keys):
    tokens = [key.sign(m2m_claims(iss=url, jti=str(number))) for url, key in keys.items() for number in range(5)]
    verifiers.warm_up()
    outcomes = []

    def work():
        outcomes.extend(verdict(verifiers, token) for _ in range(10) for token in tokens)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (outcomes.count(ISSUER), outcomes.count(OTHER)) == (200, 200)


def test_warming_up_fetches_every_key_set(verifiers, fetches):
    verifiers.warm_up()

    assert fetches() == [1, 1]


def test_tasks_can_warm_up(verifiers, fetches):
    asyncio.run(verifiers.awarm_up())

    assert fetches() == [1, 1]


@pytest.mark.parametrize("down", [ISSUER, OTHER])
def test_warming_up_goes_on_when_one_issuer_is_down(verifiers, issuers, down, clock):
    issuers[down].transport.down()

    with pytest.raises(KeySetUnavailableError):
        drive(verifiers.warm_up_flow(3.0), clock)
    assert {url: health.is_ready for url, health in verifiers.health().items()} == {url: url != down for url in issuers}


def test_health_tells_about_every_issuer(verifiers):
    assert {url: health.is_ready for url, health in verifiers.health().items()} == {ISSUER: False, OTHER: False}
    verifiers.warm_up()

    assert {url: health.is_ready for url, health in verifiers.health().items()} == {ISSUER: True, OTHER: True}


def test_closing_closes_every_transport(verifiers, issuers):
    verifiers.close()

    assert [issuer.transport.closed for issuer in issuers.values()] == [True, True]


def test_there_must_be_an_issuer():
    with pytest.raises(ConfigError, match=r"^verifiers: give at least one"):
        Verifiers()


def test_an_issuer_has_one_verifier(each, new_verifier):
    with pytest.raises(ConfigError, match=r"^verifiers: .* one only for each issuer"):
        Verifiers(*each.values(), new_verifier())
