"""``useChat`` of the AI SDK against a sidecar: a React page in a browser, and its transport in Node."""
