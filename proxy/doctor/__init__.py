"""``sse-sidecar doctor URL``: what is wrong with a stream, seen from where its readers are.

It asks for one stream, writes down when which bytes came (``evidence``, ``transcript``), drops the
connection, resumes, cancels. What that means is judged apart from it: a check is a function from evidence
to a ``finding``, without a socket and without a clock (``connection``, ``head``, ``arrival``, ``holding``,
``liveness``, ``recovery``). ``examine`` leads through the examination with ``watch``, ``again`` and
``sidecar``; ``http`` and ``dial`` speak to the network, closer to the wire than an HTTP library would let
one look; ``report`` writes.
"""
