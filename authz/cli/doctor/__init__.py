"""``authz doctor``: looks at everything that ``authz serve`` needs, and says what is wrong and how to put it right.

Each check is a function that takes a :class:`authz.cli.doctor.subject.Subject` and yields findings. The order is in
:mod:`authz.cli.doctor.examination`; what can be found, with the remedies, in :mod:`authz.cli.doctor.remedies`.
"""
