"""The script as Envoy is sent it: a resource of the extension config discovery service (ECDS)."""

import json
from datetime import timedelta
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from authz.envoy.memo.script import NAME
from authz.envoy.v3.discovery_pb2 import DiscoveryResource, DiscoveryResponse, Lua, TypedExtensionConfig

_TYPE = "type.googleapis.com/envoy."
CONFIG = _TYPE + "config.core.v3.TypedExtensionConfig"
LUA = _TYPE + "extensions.filters.http.lua.v3.Lua"
_RESOURCE = _TYPE + "service.discovery.v3.Resource"

LASTING = 5
"""Seconds after which an Envoy that hears nothing asks about every request again."""


def response(source: str, version: str, nonce: str) -> DiscoveryResponse:
    """Return what is sent to an Envoy that listens, again and again.

    Args:
        source: the script.
        version: another one for every other script.
        nonce: names the response.

    """
    filter_config = Lua(default_source_code=Lua.Source(inline_string=source))
    # What is changed are names that no route may look at; and to choose it anew would take time.
    filter_config.clear_route_cache.value = False
    named = TypedExtensionConfig(name=NAME, typed_config=_packed(LUA, filter_config))
    ttl = Duration()
    ttl.FromTimedelta(timedelta(seconds=LASTING))
    resource = DiscoveryResource(name=NAME, version=version, resource=_packed(CONFIG, named), ttl=ttl)
    return DiscoveryResponse(
        version_info=version, resources=[_packed(_RESOURCE, resource)], type_url=CONFIG, nonce=nonce
    )


def file_content(source: str, version: str) -> str:
    """Return what is written to a file for an Envoy that watches it."""
    filter_config: dict[str, Any] = {
        "@type": LUA,
        "default_source_code": {"inline_string": source},
        "clear_route_cache": False,
    }
    resource = {"@type": CONFIG, "name": NAME, "typed_config": filter_config}
    return json.dumps({"version_info": version, "resources": [resource]}, indent=1) + "\n"


def _packed(type_url: str, message: Message) -> AnyMessage:
    # Not Pack(): it would write the name of our own copy of the message.
    return AnyMessage(type_url=type_url, value=message.SerializeToString())
