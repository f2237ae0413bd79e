"""Clients that other people wrote, against the bridge and the pass-through."""
