"""One question to WorkOS, by WorkOS's own client (extra ``workos``); import it only where it is used: it loads slowly.

The client builds the request and reads the answer. Our own transport carries them: it has one
deadline for everything and a limit for bodies, and uses no redirects and no proxies of the environment.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from types import MappingProxyType
from typing import Any

import httpx2
import workos

from authz.call.words import WORD, is_identifier
from authz.organizations.directory import LookUpError
from authz.organizations.organization import Organization
from authz.runtime import telemetry
from authz.runtime.asking import NoAnswerError
from authz.runtime.network import causes
from authz.runtime.network.transport import Transport, TransportError

# The client needs one; the transport's is shorter, and for all of a request.
_TIMEOUT = 10
# If our own key is wrong, asking again does not help.
_KEY_PAUSE = 30.0
_LONGEST_PAUSE = 60.0
# The id is all that a request says, so these statuses are about it.
_ABOUT_THE_ID = frozenset({400, 422})


class WorkOSApi:
    """WorkOS as a function: :meth:`organization`, which blocks.

    Args:
        api_key: the environment's key.
        base_url: the API's URL.
        groups_key: the key of the metadata that names groups; empty for none.
        transport: sends the requests.

    """

    def __init__(self, api_key: str, base_url: str, groups_key: str, transport: Transport) -> None:
        self._client = client_of(api_key, base_url, transport)
        self._groups_key = groups_key

    def organization(self, org_id: str) -> Organization | None:
        """Return what WorkOS knows about an organization, or ``None`` if there is none of that id.

        Raises:
            LookUpError: it does not say.

        """
        try:
            # Any, because the client does not check that an answer has its declared type.
            answer: Any = self._client.organizations.get_organization(org_id)
        except workos.NotFoundError as error:
            # A 404 of a proxy, or from a wrong address, says nothing about an organization.
            if not isinstance(error.response_json, Mapping) or "message" not in error.response_json:
                raise LookUpError(f"{causes.status(404)} (but not from WorkOS)") from None
            return None
        except workos.WorkOSError as error:
            # Its text may hold anything that the server has sent.
            raise _failure_of(error, "not an organization", is_about_one=True) from None
        except (AttributeError, TypeError, ValueError):
            raise LookUpError("not an organization", is_about_one=True) from None
        if not _is_about(org_id, answer):
            raise LookUpError("mismatch (the answer is not the organization that was asked for)", is_about_one=True)
        return self._read(answer)

    def _read(self, answer: Any) -> Organization:
        labels = {key: value for key, value in answer.metadata.items() if isinstance(value, str)}
        tenant = answer.external_id or ""
        # It becomes a header, but WorkOS allows any text.
        if tenant and not (isinstance(tenant, str) and is_identifier(tenant)):
            telemetry.event(telemetry.WARNING, "external_id_ignored", organization=answer.id)
            tenant = ""
        words = [word.strip() for word in labels.get(self._groups_key, "").split(",")]
        groups = frozenset(word for word in words if re.fullmatch(WORD, word))
        if not groups.issuperset(filter(None, words)):
            telemetry.event(telemetry.WARNING, "groups_ignored", organization=answer.id)
        return Organization(tenant=tenant, groups=groups, labels=MappingProxyType(labels), name=answer.name)


def client_of(api_key: str, base_url: str, transport: Transport) -> workos.WorkOSClient:
    """Return WorkOS's client, which sends its requests by our transport, and none twice.

    Args:
        api_key: the environment's key.
        base_url: the API's URL.
        transport: sends the requests.

    """
    return workos.WorkOSClient(
        api_key=api_key,
        base_url=base_url,
        request_timeout=_TIMEOUT,
        # Who asks decides when to ask again.
        max_retries=0,
        http_client=_Backend(transport),
    )


class _Backend:
    """Our transport, with the interface that WorkOS's client needs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        content: bytes | None,  # noqa: ARG002 - of a GET
        timeout: float,
    ) -> workos.HTTPResponse:
        try:
            response = self._transport.fetch(method, url, headers=headers).result(timeout)
        except TransportError as error:
            raise workos.TransportError(error.reason) from None
        return workos.HTTPResponse(
            status_code=response.status,
            # The client asks for names with capitals.
            headers=httpx2.Headers(dict(response.headers)),
            content=response.body,
            request_method=method,
            request_url=url,
        )

    def close(self) -> None:
        """Do nothing: the owner of the transport closes it."""


@contextlib.contextmanager
def answering(otherwise: str) -> Iterator[None]:
    """Raise whatever leaves a question in the block without an answer as why there is none.

    Args:
        otherwise: the cause if there was an answer, of another form.

    Raises:
        NoAnswerError: WorkOS does not say; ``is_about_one`` if it does not understand what was asked.

    """
    try:
        yield
    except workos.WorkOSError as error:
        # Its text may hold anything that the server has sent.
        raise _failure_of(error, otherwise) from None
    except (CancelledError, TimeoutError):
        raise NoAnswerError("closed") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise NoAnswerError(otherwise) from None


def _failure_of(error: workos.WorkOSError, otherwise: str, *, is_about_one: bool = False) -> LookUpError:
    """Return why there is no answer, without anything that the server has sent.

    Args:
        error: what the client has raised.
        otherwise: the cause if there was an answer, of status 200.
        is_about_one: whether that concerns only what was asked about.

    """
    if isinstance(error, workos.RateLimitExceededError):
        return LookUpError(causes.status(429), pause=min(error.retry_after or 0.0, _LONGEST_PAUSE))
    if isinstance(error, workos.AuthenticationError | workos.AuthorizationError):
        return LookUpError(f"status {error.status_code} (WorkOS refused our API key)", pause=_KEY_PAUSE, is_ours=True)
    if (status := getattr(error, "status_code", None)) is not None:
        return LookUpError(causes.status(status), is_about_one=status in _ABOUT_THE_ID)
    if isinstance(error.__cause__, workos.TransportError):
        return LookUpError(str(error.__cause__))
    return LookUpError(otherwise, is_about_one=is_about_one)


def _is_about(org_id: str, answer: Any) -> bool:
    return (
        getattr(answer, "id", None) == org_id
        and isinstance(getattr(answer, "name", None), str)
        and isinstance(getattr(answer, "metadata", None), dict)
    )
