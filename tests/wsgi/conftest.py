import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from authz import Authorizer, current_principal
from authz.wsgi import AuthzMiddleware
from tests.asgi.conftest import judge, new_judge, token, told  # noqa: F401 - fixtures
from tests.http.serving import WSGI_SERVERS, served_wsgi

Serve = Callable[..., int]


@pytest.fixture(params=WSGI_SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that serves an application until the test is over, and returns its port."""
    with contextlib.ExitStack() as running:
        yield lambda app, server="waitress", **options: running.enter_context(served_wsgi(app, server, **options))


Guard = Callable[..., int]


@pytest.fixture
def guard(serve: Serve, judge: Authorizer) -> Guard:  # noqa: F811 - the fixture
    """Return a function that serves an application behind the middleware, and returns its port."""
    return lambda app, server="waitress", **options: serve(AuthzMiddleware(app, judge, **options), server)


def echo(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with all that the application sees of a request and of its caller."""
    organization = environ["authz.organization"]
    seen = {
        "script": environ["SCRIPT_NAME"],
        "path": environ["PATH_INFO"],
        "verb": environ["REQUEST_METHOD"],
        "variables": {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))},
        "principal": environ["authz.principal"].org_id,
        "current": current_principal().org_id,
        "organization": None if organization is None else [organization.name, organization.tenant],
    }
    text = json.dumps(seen).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [text]
