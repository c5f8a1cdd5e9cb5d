"""Envoy's question (ext_authz v3), our answer, and Envoy's configuration.

- ``check``: one question, from its bytes to those of the answer.
- ``client``: asks a running server as Envoy does.
- ``config``: the configuration of Envoy, meshes and Kubernetes.
- ``v3``: generated from Envoy's protocol.

``authz.server`` serves the answers.
"""
