"""The organizations of a WorkOS environment, as a directory (extra ``workos``)."""

import re

from authz.errors import ConfigError
from authz.organizations.directory import Directory
from authz.runtime.clock import SYSTEM_CLOCK, Clock
from authz.runtime.configuration import extra
from authz.runtime.network.transport import Transport
from authz.runtime.network.urls import check_url

_API = "https://api.workos.com"
_KEY = re.compile(r"[!-~]+", re.ASCII)


class WorkOSDirectory(Directory):
    """Ask WorkOS who an organization is: its name, ``external_id`` (our ``tenant``) and metadata (our ``labels``).

    Answers are fresh for 300 s and renewed in the background; while WorkOS cannot be asked they serve for an hour.

    Args:
        api_key: the environment's key, ``sk_…``; never logged, never part of a ``repr`` or an error.
            ``WORKOS_API_KEY``, which WorkOS's client looks for by itself, is not read.
        base_url: the API's URL, if not https://api.workos.com.
        groups_key: the key of the metadata that names an organization's groups, with commas between them;
            by default none does.
        transport: sends the requests to WorkOS; by default one of its own.
        clock: where the time comes from; answers age by whichever of its two clocks runs further.

    Raises:
        ConfigError: an argument that cannot work, or the extra is not installed.

    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        groups_key: str = "",
        transport: Transport | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._base_url = api_url(api_key, base_url)
        with extra("workos", "WorkOSDirectory: it needs the extra", package="workos"):
            # The import takes half a second, which only this class should cost.
            from authz.organizations.workos_api import WorkOSApi  # noqa: PLC0415
        self._transport = transport or Transport()
        super().__init__(WorkOSApi(api_key, self._base_url, groups_key, self._transport).organization, clock=clock)

    def __repr__(self) -> str:
        """Name the API, nothing else."""
        return f"{type(self).__name__}(base_url={self._base_url!r})"

    def close(self) -> None:
        """Stop asking."""
        super().close()
        self._transport.close()


def api_url(api_key: str, base_url: str | None) -> str:
    """Return the URL of WorkOS's API.

    Args:
        api_key: the environment's key.
        base_url: the URL, if not https://api.workos.com.

    Raises:
        ConfigError: the key is none, or the URL is none that it may be sent to.

    """
    if not _KEY.fullmatch(api_key):
        raise ConfigError("workos_api_key: must be visible ASCII, such as sk_live_…")
    return check_url(base_url or _API, "workos_base_url")
