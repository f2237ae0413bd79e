"""The built-in provider: several APIs on one loopback socket, well-behaved unless asked otherwise.

``start_provider()`` puts it on a socket of its own, ``provider()`` is the bare application, and
``expected_text(tokens)`` is what a client must have read when a stream arrived whole.
``misbehaviours()`` lists what a request can ask to go wrong.
"""

from proxy.demo.ledger import Record, State
from proxy.demo.misbehaviour import misbehaviours
from proxy.demo.provider import Running, provider, start_provider
from proxy.demo.speech import expected_text

__all__ = [
    "Record",
    "Running",
    "State",
    "expected_text",
    "misbehaviours",
    "provider",
    "start_provider",
]
