"""Autobahn's WebSocket test suite, against an echo server and against the sidecar in front of that server.

A pass-through has no WebSocket behaviour of its own: whatever the suite sees of the echo server alone, good
or bad, it must see through the sidecar. So each case is run at both, and what is tested is that nothing
differs.

``python -m tests.conformance`` runs it all and writes the table of docs/conformance.md. The suite
is installed by ``tests/install.sh test-all``, with a Python 2.7 to run it.
"""
