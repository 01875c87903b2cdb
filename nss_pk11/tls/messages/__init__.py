"""Encoding and decoding of handshake messages and extensions, side by side.  What they mean is the handshakes' business."""
