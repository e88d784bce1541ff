"""A real Kubernetes cluster for the end-to-end tests and the demo.

Start it with ``python3 -m tests.cluster up``; `provider.py` says what every kind of cluster offers, `choice.py` which
one is taken. Only the standard library, PyYAML and cryptography are used.
"""
