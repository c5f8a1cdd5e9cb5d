"""The door of Envoy: an external authorization server (ext_authz v3).

- ``check``: one question of Envoy, from its bytes to those of the answer.
- ``listeners``: where the server listens.
- ``serving``: the server and its two engines.
- ``workers``: several servers as one.
- ``operations``: what operators see of them.
- ``config``: what Envoy, meshes and Kubernetes must be told.

``process`` puts one server together, ``processes`` several, and ``rules`` what they decide by; ``client`` asks one.
"""
