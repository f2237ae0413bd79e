"""How each provider streams."""
