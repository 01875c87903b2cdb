"""Certificates: reading chains from files, saying what they hold, deciding whether a peer's is to be trusted.

Verification is `cryptography.x509.verification`'s; what is here chooses its policy, names its refusals as NSS does, and
judges by itself only what that library does not know (`rules`).  May import `errors`; touches files, no network, no clock:
the time is an argument.
"""

from __future__ import annotations

from .files import load_pem_chain, order, without_root
from .info import CertificateInfo, describe, issuer_names, matches_key, names, subject_name
from .trust import Trust

__all__ = [
    "CertificateInfo",
    "Trust",
    "describe",
    "issuer_names",
    "load_pem_chain",
    "matches_key",
    "names",
    "order",
    "subject_name",
    "without_root",
]
