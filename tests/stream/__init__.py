"""Tests of the core: no event loop, no clock, no socket."""
