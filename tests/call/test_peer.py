import ipaddress

import pytest
from cryptography import x509

from authz.call.peer import Peer
from tests.certificates import Authority, dns, uris

GATEWAY = "spiffe://cluster.local/ns/edge/sa/gateway"
TCP = "ipv4:127.0.0.1:50051"


@pytest.fixture(scope="module")
def authority():
    return Authority()


def peer_with(certificate, address=TCP):
    return Peer.of(address, {"x509_pem_cert": [certificate.chain], "transport_security_type": [b"ssl"]})


def test_a_peer_without_a_certificate_has_no_identity():
    assert Peer.of(TCP, {}) == Peer()


@pytest.mark.parametrize("certificates", [[], ()])
def test_an_empty_list_is_no_certificate(certificates):
    assert Peer.of(TCP, {"x509_pem_cert": certificates}) == Peer()


@pytest.mark.parametrize("name", ["x509_common_name", "x509_subject_alternative_name", "peer_spiffe_id"])
def test_only_the_certificate_itself_is_read(name):
    """The transport's other entries mix values of several kinds."""
    assert Peer.of(TCP, {name: [GATEWAY.encode()]}) == Peer()


@pytest.mark.parametrize("address", ["unix:", "unix:/run/authz.sock"])
def test_a_unix_socket_is_known_by_its_address(address):
    assert Peer.of(address, {}) == Peer(is_unix_socket=True)


@pytest.mark.parametrize(
    "address",
    ["unix-abstract:name", "ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "ipv6:[unix:]:1", "vsock:2:1", "", " unix:", "unix"],
)
def test_other_addresses_are_no_unix_socket(address):
    assert Peer.of(address, {}) == Peer()


def test_a_certificate_has_a_thumbprint(authority):
    certificate = authority.issue()

    assert peer_with(certificate) == Peer(certificate=certificate.thumbprint, principals=("CN=somebody",))


def test_only_the_first_certificate_is_the_peers(authority):
    """The certificates after it are its CAs'."""
    first, second = authority.issue(*uris(GATEWAY)), authority.issue(*uris("spiffe://cluster.local/other"))

    assert Peer.of(TCP, {"x509_pem_cert": [first.chain, second.chain]}).spiffe_id == GATEWAY


def test_a_certificate_on_a_unix_socket_counts_beside_it(authority):
    certificate = authority.issue(*uris(GATEWAY))

    assert peer_with(certificate, "unix:") == Peer(
        certificate=certificate.thumbprint, spiffe_id=GATEWAY, principals=(GATEWAY,), is_unix_socket=True
    )


def test_the_same_certificate_elsewhere_is_on_no_unix_socket(authority):
    """Peers are remembered, by certificate and address."""
    certificate = authority.issue()

    sockets = [peer_with(certificate, address).is_unix_socket for address in ("unix:", TCP, "unix:")]

    assert sockets == [True, False, True]


def test_one_uri_is_a_spiffe_id(authority):
    assert peer_with(authority.issue(*uris(GATEWAY), *dns("gateway"))).spiffe_id == GATEWAY


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(uris(GATEWAY, "spiffe://cluster.local/ns/edge/sa/other"), id="two-ids"),
        pytest.param(uris("https://gateway.example/", GATEWAY), id="another-uri-before"),
        pytest.param(uris(GATEWAY, "https://gateway.example/"), id="another-uri-after"),
        pytest.param(uris(GATEWAY, GATEWAY), id="the-same-twice"),
        pytest.param(uris("https://gateway.example/"), id="another-scheme"),
        pytest.param(uris(GATEWAY.upper()), id="upper-case"),
        pytest.param(uris(f" {GATEWAY}"), id="leading-blank"),
        pytest.param(dns(GATEWAY), id="as-dns-name"),
        pytest.param([x509.RFC822Name(GATEWAY)], id="as-email"),
        pytest.param(dns("gateway"), id="none"),
    ],
)
def test_anything_else_is_no_spiffe_id(authority, names):
    """X.509-SVID section 2: exactly one URI."""
    assert peer_with(authority.issue(*names, common_name=GATEWAY[:64])).spiffe_id == ""


def test_dns_names_are_in_lower_case(authority):
    assert peer_with(authority.issue(*dns("Gateway.Example", "b"))).dns_names == {"gateway.example", "b"}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param([], id="common-name"),
        pytest.param(uris("gateway.example"), id="uri"),
        pytest.param([x509.RFC822Name("gateway.example")], id="email"),
        pytest.param([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], id="address"),
        pytest.param([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], id="registered-id"),
    ],
)
def test_other_names_are_no_dns_names(authority, names):
    """The common name never is, either."""
    assert peer_with(authority.issue(*names, common_name="gateway.example")).dns_names == frozenset()


@pytest.mark.parametrize(
    ("names", "principals"),
    [
        pytest.param([*uris(GATEWAY, "https://b/"), *dns("c")], (GATEWAY, "https://b/"), id="uris"),
        pytest.param([*uris(""), *dns("Gateway.Example", "b")], ("Gateway.Example", "b"), id="dns-names"),
        pytest.param(dns(""), ("CN=somebody",), id="empty-names"),
        pytest.param([x509.RFC822Name("gateway.example")], ("CN=somebody",), id="subject"),
    ],
)
def test_policies_compare_one_kind_of_name(authority, names, principals):
    """The first kind that is present counts: gRFC A41."""
    assert peer_with(authority.issue(*names)).principals == principals


@pytest.mark.parametrize("security", [b"ssl", b"tls"])
def test_without_a_certificate_tls_has_a_principal_without_a_name(security):
    """A43: the empty string matches."""
    assert Peer.of(TCP, {"transport_security_type": [security]}) == Peer(principals=("",))


@pytest.mark.parametrize("security", [b"local", b"insecure", b"alts"])
def test_without_tls_there_is_no_principal(security):
    """A43: matching fails."""
    assert Peer.of(TCP, {"transport_security_type": [security]}) == Peer()


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"])
def test_what_is_no_certificate_is_an_error(pem):
    with pytest.raises(ValueError, match=r"\w"):
        Peer.of(TCP, {"x509_pem_cert": [pem]})
