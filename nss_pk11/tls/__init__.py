"""The TLS engine: bytes in, bytes out, and requests for what only a driver can do.

Sans-I/O: no sockets, files, threads or tokens, and no clock but the one it is given.  Imports `errors` and nothing else of the
package.  Start at `engine`; `server` and `client` lead into the handshakes, `suites` and `codepoints` are the tables.
"""
