"""Manifests for the authorization server on Kubernetes, with the settings in force, and for the Envoy that asks it."""

import base64
import math
from typing import Any
from urllib.parse import urlsplit

from authz.envoy.config.annotated import Document, render
from authz.envoy.config.mesh import Service
from authz.envoy.config.pod import FILES_FOLDER, SECRETS_FOLDER, TLS_FOLDER, Pod, pod_of
from authz.policy.configured import policy_in_force
from authz.settings.settings import Settings
from authz.settings.variables import PREFIX
from authz.store.address import place_of

_HEALTH_PORT = 9192
# The image's user, which owns no files there.
_USER = 65532
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - a pod's own address
# `kubectl apply` keeps a copy of what it applies in an annotation, whose size is limited.
_APPLIED_BYTES = 200_000
# Seconds for connections to close after drain and grace, and Kubernetes's default time from SIGTERM on.
_REST_SECONDS, _LEAST_SECONDS = 5, 30


def kubernetes(service: Service, settings: Settings, bootstrap: Document) -> list[Document]:
    """Return the manifests of the server and of Envoy's configuration.

    Args:
        service: its name, namespace and port.
        settings: the server's settings, to be printed, mounted, or referred to in a Secret.
        bootstrap: Envoy's configuration, which asks ``service``.

    Raises:
        ConfigError: a setting cannot be printed, and the printed server would be more open without it.

    """
    pod = pod_of(settings)
    documents = [
        _deployment(service, settings, pod),
        _service(service),
        _config_map(service, bootstrap),
        _network_policy(service, settings),
    ]
    return [*documents, _files(service, pod)] if pod.files else documents


def environment(service: Service, pod: Pod) -> list[dict[str, Any]]:
    """Return the environment variables that hold a container's settings."""
    scheme = "tls:" if pod.has_tls else ""
    placeholders = {"issuer": "https://acme.authkit.app", "audience": "client_01"}
    told = {
        **({} if "issuers" in pod.variables else placeholders),
        **pod.variables,
        "listen": f"{scheme}{_EVERYWHERE}:{service.port}",
        "http_listen": f"{_EVERYWHERE}:{_HEALTH_PORT}",
    }
    # Kubernetes would replace $(NAME) by the value of another variable.
    values = [
        {"name": _variable(name), "value": value.replace("$", "$$")}
        for name, value in told.items()
        if name not in pod.secrets
    ]
    references = [
        {"name": _variable(name), "valueFrom": {"secretKeyRef": {"name": service.name, "key": key}}}
        for name, key in pod.secrets.items()
    ]
    return [*values, *references]


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _deployment(service: Service, settings: Settings, pod: Pod) -> Document:
    labels = {"app.kubernetes.io/name": service.name}
    template = _template(service, settings, pod)
    return Document(
        data={
            **_object("apps/v1", "Deployment", service, service.name),
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": template},
            },
        },
        title="\n".join(_title(service, settings, pod)),
        comments={
            "*/readinessProbe": "A pod is ready when it has the issuer's keys.",
            "*/livenessProbe": "A pod that answers is alive: an issuer that is down is no reason to restart it.",
            "*/limits": "A process that takes more memory is killed and restarted. No limit of CPU: a process that is "
            "throttled for a tenth of a second makes every waiting call late.",
            "*/env/*/valueFrom": "From the Secret, never printed.",
            "*/automountServiceAccountToken": "The server does not use the Kubernetes API.",
            "*/enableServiceLinks": "Off, because the variables of a Service called authz would begin with AUTHZ_.",
            "*/terminationGracePeriodSeconds": "More than drain and grace together.",
            "*/volumes/tmp": "The root is read-only; workers share their metrics here.",
        },
    )


def _template(service: Service, settings: Settings, pod: Pod) -> dict[str, Any]:
    volumes = _volumes(service, pod)
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": max(
            math.ceil(settings.drain + settings.grace) + _REST_SECONDS, _LEAST_SECONDS
        ),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(service, settings, pod, [mount for mount, _ in volumes])],
        "volumes": [volume for _, volume in volumes],
    }


def _container(service: Service, settings: Settings, pod: Pod, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "authz",
        "image": "registry.example/grpc-org-authz:0.1.0",
        "args": ["serve"],
        "env": environment(service, pod),
        "ports": [{"name": "grpc", "containerPort": service.port}, {"name": "http", "containerPort": _HEALTH_PORT}],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
        "resources": {
            "requests": {"cpu": "250m", "memory": f"{128 * settings.workers}Mi"},
            "limits": {"memory": f"{512 * settings.workers}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _title(service: Service, settings: Settings, pod: Pod) -> list[str]:
    lines = [
        "For Kubernetes 1.27 and later. Made by `authz envoy-config --format kubernetes`.",
        "Replace: the image, and issuer and audience if they are not yours.",
    ]
    if not policy_in_force(settings):
        lines.append("Warning: there is no policy, so every good token may call everything (AUTHZ_POLICY).")
    if not pod.has_tls:
        lines.append("Tokens reach it in plain text: for TLS set AUTHZ_TLS_CERT_FILE and AUTHZ_TLS_KEY_FILE.")
    create = f"kubectl --namespace {service.namespace} create secret"
    if pod.secrets or pod.secret_files:
        files = " ".join(f"--from-file={key}=FILE" for key in [*pod.secrets.values(), *pod.secret_files])
        lines.append(f"Needs a Secret: {create} generic {service.name} {files}")
    if pod.has_tls:
        lines.append(f"Needs a Secret: {create} tls {service.name}-tls --cert=FILE --key=FILE")
    if sum(map(len, pod.files.values())) > _APPLIED_BYTES:
        lines.append("The files are large: kubectl apply --server-side.")
    lines += [f"Left out: {name}, since {why}." for name, why in pod.left_out.items()]
    return lines


def _volumes(service: Service, pod: Pod) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return each volume, after its mount."""
    found = [_volume("tmp", "/tmp", {"emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}})]  # noqa: S108 - a pod's own
    if pod.files:
        # As a whole: a mount with subPath would never be updated.
        found.append(_volume("files", FILES_FOLDER, {"configMap": {"name": f"{service.name}-files"}}))
    if pod.secret_files:
        items = [{"key": key, "path": key} for key in pod.secret_files]
        secret: dict[str, Any] = {"secretName": service.name, "items": items, "defaultMode": 0o440}
        found.append(_volume("secrets", SECRETS_FOLDER, {"secret": secret}))
    if pod.has_tls:
        secret = {"secretName": f"{service.name}-tls", "defaultMode": 0o440}
        found.append(_volume("tls", TLS_FOLDER, {"secret": secret}))
    return found


def _volume(name: str, path: str, source: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    writable = {} if "emptyDir" in source else {"readOnly": True}
    return {"name": name, "mountPath": path, **writable}, {"name": name, **source}


def _files(service: Service, pod: Pod) -> Document:
    texts, bodies = {}, {}
    for key, content in pod.files.items():
        try:
            texts[key] = content.decode()
        except UnicodeDecodeError:
            bodies[key] = base64.b64encode(content).decode()
    return Document(
        data={
            **_object("v1", "ConfigMap", service, f"{service.name}-files"),
            **({"data": texts} if texts else {}),
            **({"binaryData": bodies} if bodies else {}),
        },
        title="The files that the settings name. Changes of policies and descriptors take effect within about a "
        "minute, without new pods.",
    )


def _network_policy(service: Service, settings: Settings) -> Document:
    listed = settings.listed()
    urls = [settings.issuer, settings.jwks_url, settings.introspection_url, settings.workos_base_url]
    urls += [] if listed is None else listed.urls()
    stores = [place_of(url) for url in (settings.store, settings.quota_store) if url is not None]
    ports = sorted(
        {443, *(urlsplit(url).port or 443 for url in urls if url is not None)}
        | {port for store in stores for _, port in store.hosts}
    )
    return Document(
        data={
            **_object("networking.k8s.io/v1", "NetworkPolicy", service, service.name),
            "spec": {
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": service.name}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [_peer("envoy", "app.kubernetes.io/name", "envoy")], "ports": [{"port": "grpc"}]},
                    {
                        "from": [_peer("monitoring", "app.kubernetes.io/name", "prometheus")],
                        "ports": [{"port": "http"}],
                    },
                ],
                "egress": [
                    {
                        "to": [_peer("kube-system", "k8s-app", "kube-dns")],
                        "ports": [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")],
                    },
                    {"ports": [{"port": port, "protocol": "TCP"} for port in ports]},
                ],
            },
        },
        title="Replace: namespaces and labels, with those of your Envoys and your Prometheus.",
        comments={
            "*/ingress/0": "Port grpc says whether a token is valid, so only Envoy may reach it.",
            "*/ingress/1": "Metrics. The kubelet's probes come from the node; network plugins let them pass. If yours "
            "does not, add the nodes' addresses here.",
            "*/egress/1": "The issuer"
            + (", and the store" if stores else "")
            + ". Its addresses change, and a NetworkPolicy has no names: TLS verifies who it is.",
        },
    )


def _peer(namespace: str, label: str, value: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {label: value}},
    }


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
            "*/clusterIP": "Headless: Envoy sees every pod, and balances checks, not connections. Leave this out if "
            "Istio's sidecars ask, which do not balance over a headless service.",
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
