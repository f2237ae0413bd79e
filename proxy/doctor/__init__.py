"""``sse-sidecar doctor URL``: what is wrong with a stream, seen from where its readers are.

It asks for one stream, writes down when which bytes came (``evidence``, ``transcript``), drops the
connection, resumes, cancels. What that means is judged apart from it: a check is a function from evidence
to a ``finding``, without a socket and without a clock. Which is where:

- ``connection``: connection, http2
- ``head``: status, headers, cors
- ``arrival``: compression, timing
- ``holding``, with ``lump`` and ``stamp``: buffering
- ``liveness``: heartbeats, ids, idle, end
- ``recovery``: resume, cancel, websocket
- ``sdk``: sdk

``edge`` knows who may stand between, and how each is told to pass streams on. ``examine`` leads through the
examination: it asks through ``ask``, watches with ``watch``, looks at the ``sidecar``, drops and comes back
with ``again``. ``http`` and ``dial`` speak to the network, closer to the wire than an HTTP library would let
one look. ``arguments`` and ``command`` are the command line, ``report`` writes.
"""
