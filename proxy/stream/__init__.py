"""The heart: bytes become numbered blocks, a bounded log keeps them, readers follow it.

Nothing here waits, looks at a clock or knows HTTP: it takes bytes and returns what should happen.
"""
