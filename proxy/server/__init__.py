"""The only place that knows aiohttp: listeners, upstreams, and the handlers between them."""
