"""The benchmark of sse-sidecar: what one event costs, beside what it costs others. ``python -m bench``.

``loads`` says what is asked, ``lineup`` who is asked (their configurations lie in ``contestants/``),
``rounds`` asks them in turn, ``measure`` does one measurement, with ``native`` (the upstream and the
load generator, both in C), ``process`` and ``machine`` (pinning, CPU time, memory). ``figures`` makes
medians, ratios and marks of the samples; ``report`` and ``plot`` write them down. README.md says how
to read the results.
"""
