"""A virtual smart card behind real PC/SC: pcscd, the vpcd driver and OpenSC see a PIV card that a test holds in its hand.

`card` is the card (ISO 7816 commands in, answers out), `reader` the reader it is pushed into.
"""

from .card import PivCard, PivKey
from .reader import Reader

__all__ = ["PivCard", "PivKey", "Reader"]
