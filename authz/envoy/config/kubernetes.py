"""The authorization server on Kubernetes, with the settings in force, and the Envoy that asks it."""

from typing import Any

from pydantic import SecretStr

from authz.envoy.config.annotated import Document, render
from authz.envoy.config.mesh import Service
from authz.settings import Settings

_HEALTH_PORT = 9192
_SECRET = "AUTHZ_INTROSPECTION_CLIENT_SECRET"  # noqa: S105 - its name
# Which say where a server is, or name files of this machine.
_OURS = {"listen", "http_listen"}
_FILES = {"descriptors", "jwks", "jwks_seed", "policy"}


def kubernetes(service: Service, settings: Settings, bootstrap: Document) -> list[Document]:
    """Return the manifests of the server and of Envoy's configuration.

    Args:
        service: what to call it.
        settings: what the server is told; secrets are referred to, and files left out.
        bootstrap: Envoy's configuration, which asks ``service``.

    """
    return [_deployment(service, settings), _service(service), _config_map(service, bootstrap)]


def environment(settings: Settings, service: Service) -> list[dict[str, Any]]:
    """Return the variables that give a container ``settings``."""
    values = {name: getattr(settings, name) for name in sorted(settings.model_fields_set - _OURS)}
    told = {
        f"AUTHZ_{name.upper()}": _text(value)
        for name, value in values.items()
        if value is not None and not isinstance(value, SecretStr) and not _is_file(name)
    }
    fixed = {
        "AUTHZ_ISSUER": "https://acme.authkit.app",
        "AUTHZ_AUDIENCE": "client_01",
        "AUTHZ_LISTEN": f"0.0.0.0:{service.port}",
        "AUTHZ_HTTP_LISTEN": f"0.0.0.0:{_HEALTH_PORT}",
    }
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in {**fixed, **told}.items()]
    if settings.introspect_max_age is not None:
        reference = {"name": service.name, "key": "introspection-client-secret"}
        variables.append({"name": _SECRET, "valueFrom": {"secretKeyRef": reference}})
    return variables


def _is_file(name: str) -> bool:
    return name.endswith("_file") or name in _FILES


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _deployment(service: Service, settings: Settings) -> Document:
    labels = {"app.kubernetes.io/name": service.name}
    left_out = [name for name in sorted(settings.model_fields_set) if _is_file(name)]
    container = {
        "name": "authz",
        "image": "registry.example/grpc-org-authz:0.1.0",
        "args": ["authz", "serve"],
        "env": environment(settings, service),
        "ports": [{"name": "grpc", "containerPort": service.port}, {"name": "http", "containerPort": _HEALTH_PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return Document(
        data={
            **_object("apps/v1", "Deployment", service, service.name),
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        title="For Kubernetes 1.27 and later. Made by `authz envoy-config --format kubernetes`.\n"
        "Replace: the image, and issuer and audience if they are not yours.\n"
        + (f"Left out, since they name files, which are yours to mount: {', '.join(left_out)}.\n" if left_out else "")
        + f"Port {service.port} tells anybody whether a token is good: let only Envoy reach it (NetworkPolicy).",
        comments={
            "*/readinessProbe": "Ready is who has the issuer's keys.",
            "*/livenessProbe": "Alive is who answers: an issuer that is down is no reason to restart.",
            "*/env/*/valueFrom": "kubectl create secret generic, with this name and key.",
            "*/automountServiceAccountToken": "It asks nothing of Kubernetes.",
        },
    )


def _service(service: Service) -> Document:
    return Document(
        data={
            **_object("v1", "Service", service, service.name),
            "spec": {
                "clusterIP": "None",
                "selector": {"app.kubernetes.io/name": service.name},
                "ports": [{"name": "grpc", "port": service.port, "targetPort": "grpc", "appProtocol": "grpc"}],
            },
        },
        comments={
            "*/clusterIP": "Headless: Envoy sees every pod, and shares out checks, not connections. Leave this out "
            "where Istio's sidecars check, which share out nothing over a headless service.",
        },
    )


def _config_map(service: Service, bootstrap: Document) -> Document:
    return Document(
        data={
            **_object("v1", "ConfigMap", service, "envoy"),
            "data": {"envoy.yaml": render([bootstrap])},
        },
        title="For an Envoy of your own: mount it as /etc/envoy, in the backend's namespace.",
    )


def _object(version: str, kind: str, service: Service, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": service.namespace}}
