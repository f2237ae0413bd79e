"""The built-in provider, tested from the outside: by sockets and by the SDKs of those it speaks for."""
