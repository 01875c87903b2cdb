"""Name constraints (RFC 5280 section 4.2.1.10): do the names below a CA lie where that CA may give names?

As NSS reads them: names of a kind that no constraint mentions are free; a DNS constraint covers the name itself and what
ends in it after a dot; kinds of names that TLS has no use for never matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from .facts import Facts
from .host_names import matches_pattern
from .rules import refusal

Named = tuple[type, Any]  # a kind of GeneralName, and the name


def constrained_names(certificate: Facts, *, server: bool) -> list[Named]:
    """The names that constraints apply to: subject, e-mail addresses in it, alternative names; of a `server` without any
    DNS name or address also the common name."""
    subject = certificate.certificate.subject
    names: list[Named] = [(x509.DirectoryName, subject)]
    names += ((x509.RFC822Name, str(found.value)) for found in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS))
    names += ((type(name), name.value) for name in certificate.alternative_names)
    hosts = any(kind in (x509.DNSName, x509.IPAddress) for kind, _ in names)
    if server and not hosts and certificate.common_name:
        names.append((x509.DNSName, certificate.common_name))
    return names


def check_names(issuer: Facts, names: Iterable[Named]) -> None:
    """Raises CertificateError (SEC_ERROR_CERT_NOT_IN_NAME_SPACE)."""
    constraints = issuer.name_constraints
    if constraints is None:
        return
    for kind, value in names:
        excluded = _of_kind(constraints.excluded_subtrees, kind)
        permitted = _of_kind(constraints.permitted_subtrees, kind)
        within = _RULES.get(kind, _never)
        if any(within(value, subtree) or _may_stand_for(kind, value, subtree) for subtree in excluded) or (
            permitted and not any(within(value, subtree) for subtree in permitted)
        ):
            raise refusal(f"may not issue for {value}", "SEC_ERROR_CERT_NOT_IN_NAME_SPACE", issuer.certificate)


def comparisons(issuer: Facts, names: Sequence[Named]) -> int:
    """How many `check_names` has to make at most."""
    constraints = issuer.name_constraints
    if constraints is None:
        return 0
    return len(names) * (len(constraints.excluded_subtrees or ()) + len(constraints.permitted_subtrees or ()))


def _may_stand_for(kind: type, name: str, subtree: str) -> bool:
    """Whether a wildcard would do for a host that is excluded, which NSS does not look at."""
    return kind is x509.DNSName and "*" in name and matches_pattern(name, subtree)


def _of_kind(subtrees: Iterable[x509.GeneralName] | None, kind: type) -> list[Any]:
    """What the constraints of this kind say; none where it is a kind that TLS has no use for."""
    return [subtree.value for subtree in subtrees or () if type(subtree) is kind and kind in _RULES]


def _never(name: object, subtree: object) -> bool:
    return False


def _dns(name: str, subtree: str) -> bool:
    """`example.com` covers itself and `www.example.com`; `.example.com` covers only the latter; nothing covers all."""
    name, subtree = name.lower(), subtree.lower()
    if not subtree or name == subtree:
        return True
    before = name.removesuffix(subtree)
    return before != name and before.endswith(".") is not subtree.startswith(".")


def _mail(name: str, subtree: str) -> bool:
    """A mailbox, the mailboxes on a host, or, from a dot, those on the hosts in a domain."""
    name, subtree = name.lower(), subtree.lower()
    if "@" in subtree:
        return name == subtree
    return name.endswith(subtree) if subtree.startswith(".") or not subtree else name.endswith("@" + subtree)


def _uri(name: str, subtree: str) -> bool:
    """By the URI's host: that one, or, from a dot, one in that domain."""
    try:
        host = urlsplit(name).hostname or ""
    except ValueError:
        return False
    subtree = subtree.lower()
    return len(host) > len(subtree) and host.endswith(subtree) if subtree.startswith(".") else bool(subtree) and host == subtree


def _directory(name: x509.Name, subtree: x509.Name) -> bool:
    """The name begins with what the constraint says."""
    return len(name.rdns) >= len(subtree.rdns) and all(
        set(wanted) <= set(found) for wanted, found in zip(subtree.rdns, name.rdns, strict=False)
    )


def _address(name: object, subtree: object) -> bool:
    try:
        return name in subtree  # type: ignore[operator]
    except TypeError:
        return False


_RULES: dict[type, Callable[..., bool]] = {
    x509.DNSName: _dns,
    x509.RFC822Name: _mail,
    x509.UniformResourceIdentifier: _uri,
    x509.DirectoryName: _directory,
    x509.IPAddress: _address,
}
