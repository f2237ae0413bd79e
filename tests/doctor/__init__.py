"""Tests of ``sse-sidecar doctor``: judgements by what was seen, and examinations of real streams."""
