"""Foreign TLS stacks: servers to connect to and clients to be connected to by."""
