"""sse-sidecar: a reverse proxy that makes event streams whole.

The way of one event, from the upstream's socket to a client's:

1.  ``server.gateway`` finds the request's route (``server.routing``), checks who asks
    (``server.guard``), and sends it upstream (``server.upstream``, ``server.pool``), where the route says
    so with additions (``server.inject``), or as the POST behind an EventSource's GET (``server.prompt``).
2.  A 200 with ``text/event-stream`` makes a stream: ``server.opening`` gives it a ``server.relay``.
    Any other answer passes through (``server.plain``).
3.  ``server.direct`` hands every read to the relay in the call in which it arrives; a body in a content
    coding is undone and handed on by ``server.source``, in a task.
4.  ``server.lane``, the relay's busy half, takes it from there. ``stream.sse`` cuts it into blocks, or
    ``stream.plain`` tells that it is nothing but plain events; ``dialects`` looks at the first block,
    and at the last few when the stream ends: was that its end? (What is no event stream is cut into blocks
    by another ``stream.framing``.) Where the route asks for another form, ``emit.translation`` tells each
    block anew: ``dialects`` read it into parts (``dialects.part``), which ``emit`` writes.
5.  ``stream.numbering`` gives each block its id, and ``stream.log`` keeps it.
6.  Every reader that stands at the head of the log gets the same bytes at once (``server.sse``), or
    as frames (``server.ws``, ``stream.frames``); one that is behind is a cursor (``stream.reader``) and
    continues from the log. Both are a ``server.follower``.
7.  A client that dropped comes back through ``server.resume``, or knows its chat's name alone
    (``server.resume_by_alias``); one that presses stop, through ``server.streams``. Over WebSocket both are
    said to ``server.bridge``.
8.  What happened is counted in ``server.tally`` and told by ``server.report`` and ``telemetry``. What a
    model's stream tells of itself, ``server.observation`` reads out of its beginning and its end.

A WebSocket of the upstream's own passes through ``server.tunnel``, untouched.

``server.app`` puts it together from ``config``; ``store`` bounds all logs. What browsers load is in ``web``.
Beside the way of events stand ``doctor``, which examines any stream from where its readers are, ``chat``, and
``demo``, a provider to try it all with.
Imports run one way: errors, stream → dialects → emit → config, web → store, telemetry → server → demo, chat,
doctor → cli.
"""

__version__ = "0.1.0"
