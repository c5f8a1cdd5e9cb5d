"""Builds what follows the events of WorkOS and lists its applications, as the settings say."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from authz.judge.configured import workos_issuer
from authz.judge.orders.file import OrdersFile
from authz.judge.orders.operator import Operator
from authz.organizations.workos import api_url
from authz.runtime.configuration import extra
from authz.runtime.network.transport import Transport
from authz.server.workos.following import WorkOSEvents
from authz.server.workos.listing import Register, WorkOSApplications
from authz.server.workos.place import Place, PlaceHere
from authz.server.workos.register import RegisterHere
from authz.settings.issuer import needed_secret
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.store.shared_state import Sharing

T = TypeVar("T")

# A hundred organizations with all the metadata that WorkOS allows.
_MAX_BYTES = 4 * 1024 * 1024


def workos_events_of(
    settings: Settings, operator: Operator, file: OrdersFile | None, sharing: "Sharing | None"
) -> WorkOSEvents:
    """Return what follows the events of WorkOS.

    Args:
        settings: the settings.
        operator: takes the orders in this process.
        file: the file that they are kept in, if there is one.
        sharing: shares them with other replicas, if there is a store.

    Raises:
        ConfigError: a setting is missing or cannot work, or the extra is not installed.

    """
    with extra("workos", "workos_events: it needs the extra", package="workos"):
        # The import takes half a second, which only this should cost.
        from authz.server.workos.api import EventsApi  # noqa: PLC0415
    api = _asking(settings, EventsApi)
    place: Place
    if sharing is None:
        place = PlaceHere(operator, file)
    else:
        from authz.server.workos.shared_place import SharedPlace  # noqa: PLC0415 - not needed without a store

        place = SharedPlace(sharing.store, lambda: sharing.heartbeat.id)
    issuer = workos_issuer(settings.listed())
    is_told = settings.workos_webhooks is not None
    return WorkOSEvents(api, place, interval=settings.workos_events_interval, issuer=issuer, is_told=is_told)


def workos_applications_of(
    settings: Settings,
    operator: Operator,
    sharing: "Sharing | None",
    leads: Callable[[], bool],
    name: Callable[[Mapping[str, str]], object],
) -> WorkOSApplications:
    """Return what lists the applications of WorkOS.

    Args:
        settings: the settings.
        operator: takes the orders in this process.
        sharing: shares them with other replicas, if there is a store.
        leads: says whether this process is the one that lists them.
        name: is told what they are called by now, by client id.

    Raises:
        ConfigError: a setting is missing or cannot work, or the extra is not installed.

    """
    with extra("workos", "workos_applications: it needs the extra", package="workos"):
        from authz.server.workos.applications_api import ApplicationsApi  # noqa: PLC0415 - as above
    register: Register
    if sharing is None:
        register = RegisterHere(operator)
    else:
        from authz.server.workos.shared_register import SharedRegister  # noqa: PLC0415 - not needed without a store

        register = SharedRegister(sharing.store, operator)
    return WorkOSApplications(
        _asking(settings, ApplicationsApi),
        register,
        leads=leads,
        name=name,
        interval=settings.workos_applications_interval,
        issuer=workos_issuer(settings.listed()),
    )


def _asking(settings: Settings, api: Callable[[str, str, Transport], T]) -> T:
    key = needed_secret("workos_api_key", settings.workos_api_key, settings.workos_api_key_file)
    return api(key, api_url(key, settings.workos_base_url), settings.transport(max_bytes=_MAX_BYTES))
