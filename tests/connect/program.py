"""A WSGI application for a server that runs in processes of its own; the keys of the issuer are in a variable."""

import os

from authz import Authorizer, Policy, Verifier
from authz.connect import interceptors_sync
from tests.connect.messages import GOOGLE
from tests.connect.service import PUBLIC_METHODS, SyncHandlers, Witness, WsgiApp
from tests.doubles import AUDIENCE, ISSUER

_verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, jwks=os.environ["TESTS_JWKS"], algorithms=["ES256"])
_policy = Policy.from_document({"name": "all", "allow_rules": [{"name": "all"}]})
_judge = Authorizer(_verifier, public_methods=PUBLIC_METHODS, policy=_policy)
app = WsgiApp(GOOGLE, SyncHandlers(GOOGLE, Witness()), interceptors_sync(_judge))
