"""The development issuer posts what happens, and WorkOS's own client takes it for WorkOS's."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from workos.webhooks._verification import verify_event

from authz.demo.issuer.directory import DEFAULT_WEBHOOK_SECRET, Directory, Organization
from authz.demo.issuer.program import Issuer, IssuerServer
from authz.errors import ConfigError
from tests.doubles import eventually


@pytest.fixture
def receiver():
    """Return a server that keeps what is posted to it in ``posts``."""

    class Receiving(BaseHTTPRequestHandler):
        def do_POST(self):
            posts.append((self.headers["workos-signature"], self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    posts = []
    with HTTPServer(("127.0.0.1", 0), Receiving) as server:
        server.posts, server.url = posts, f"http://127.0.0.1:{server.server_port}/webhooks/workos"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def issuer_of(rsa_key):
    organization = Organization(id="org_1", name="Äcme", applications=())
    return Issuer(directory=Directory(audience="client_1", organizations=(organization,)), keys=[rsa_key])


def test_what_happens_is_posted_in_its_order_as_workos_posts_it(rsa_key, receiver):
    issuer = issuer_of(rsa_key)
    with IssuerServer(issuer, webhooks=receiver.url):
        issuer.environment.update_organization("org_1", {"name": "Acme"})
        issuer.environment.delete_organization("org_1")
        eventually(lambda: len(receiver.posts) == 2)

    events = [
        verify_event(event_body=body, event_signature=header, secret=DEFAULT_WEBHOOK_SECRET)
        for header, body in receiver.posts
    ]
    assert [(event.event, event.data.id, event.data.name) for event in events] == [
        ("organization.updated", "org_1", "Acme"),
        ("organization.deleted", "org_1", "Acme"),
    ]


def test_receiver_that_is_away_loses_a_webhook_and_no_event(rsa_key):
    issuer = issuer_of(rsa_key)
    with IssuerServer(issuer, webhooks="http://127.0.0.1:9/webhooks/workos"):
        issuer.environment.delete_organization("org_1")

    events, _ = issuer.environment.events.page(["organization.deleted"], limit=10)
    assert [event.organization.id for event in events] == ["org_1"]


def test_webhooks_go_over_no_network_without_tls(rsa_key):
    with pytest.raises(ConfigError, match=r"^webhooks: .*http://example\.com"):
        IssuerServer(issuer_of(rsa_key), webhooks="http://example.com/webhooks/workos")
