"""A real browser in front of the sidecar: what EventSource, fetch and sendBeacon make of it."""
