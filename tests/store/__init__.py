"""Tests of where logs live."""
