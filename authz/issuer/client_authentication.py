"""Client authentication at an issuer by a secret (RFC 6749 section 2.3.1).

Pure: no clock, no I/O, no state.
"""

import base64
from typing import get_args
from urllib.parse import quote_plus

from authz.errors import ConfigError
from authz.runtime.network.transport import Form
from authz.settings.variables import AuthMethod


def check_auth_method(method: str) -> None:
    """Check that ``method`` is an :data:`authz.settings.variables.AuthMethod`.

    Raises:
        ConfigError: it is not.

    """
    if method not in get_args(AuthMethod):
        raise ConfigError(f"auth_method: {method!a} must be {' or '.join(get_args(AuthMethod))}")


def authenticated(form: Form, method: AuthMethod, client_id: str, secret: str) -> tuple[Form, dict[str, str]]:
    """Return the form and the headers that send ``form`` on behalf of a client.

    Args:
        form: the fields of the request itself.
        method: whether the secret goes into the form or into a header.
        client_id: the client.
        secret: its secret.

    """
    if method == "client_secret_post":
        return {**form, "client_id": client_id, "client_secret": secret}, {}
    # Form-encoded first, then Basic.
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return form, {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
