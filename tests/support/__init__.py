"""Both ends of the wire for tests: an origin that follows a script, and a client that speaks bytes."""
