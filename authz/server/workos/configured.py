"""Builds what follows the events of WorkOS, as the settings say."""

from typing import TYPE_CHECKING

from authz.judge.configured import workos_issuer
from authz.judge.orders.file import OrdersFile
from authz.judge.orders.operator import Operator
from authz.organizations.workos import api_url
from authz.runtime.configuration import extra
from authz.server.workos.following import WorkOSEvents
from authz.server.workos.place import Place, PlaceHere
from authz.settings.issuer import needed_secret
from authz.settings.settings import Settings

if TYPE_CHECKING:
    from authz.store.shared_state import Sharing

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
    key = needed_secret("workos_api_key", settings.workos_api_key, settings.workos_api_key_file)
    url = api_url(key, settings.workos_base_url)
    issuer = workos_issuer(settings.listed())
    with extra("workos", "workos_events: it needs the extra", package="workos"):
        # The import takes half a second, which only this should cost.
        from authz.server.workos.api import EventsApi  # noqa: PLC0415
    place: Place
    if sharing is None:
        place = PlaceHere(operator, file)
    else:
        from authz.server.workos.shared_place import SharedPlace  # noqa: PLC0415 - not needed without a store

        place = SharedPlace(sharing.store)
    api = EventsApi(key, url, settings.transport(max_bytes=_MAX_BYTES))
    return WorkOSEvents(api, place, interval=settings.workos_events_interval, issuer=issuer)
