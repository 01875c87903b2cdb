"""The drivers: the only room where the engine and tokens meet, and the only one that touches sockets.

`blocking` is a TLS socket, `server` the loop that `serve` runs on, `client` and `identity` the ways in, `executor` runs what an
engine asks for.
"""
