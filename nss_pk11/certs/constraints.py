"""Name constraints (RFC 5280 section 4.2.1.10): do the names below a CA lie where that CA may give names?

As NSS reads them: names of a kind that no constraint mentions are free; a DNS constraint covers the name itself and what
ends in it after a dot; kinds of names that TLS has no use for never matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from .facts import Facts
from .rules import refusal


def constrained_names(certificate: Facts, *, server: bool) -> list[x509.GeneralName]:
    """The names that constraints apply to: subject, e-mail addresses in it, alternative names; of a `server` without any
    DNS name or address also the common name."""
    subject = certificate.certificate.subject
    names: list[x509.GeneralName] = [x509.DirectoryName(subject)]
    names += (_email(str(found.value)) for found in subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS))
    names += certificate.alternative_names
    hosts = any(isinstance(name, x509.DNSName | x509.IPAddress) for name in certificate.alternative_names)
    if server and not hosts and certificate.common_name:
        names.append(x509.DNSName._init_without_validation(certificate.common_name))
    return names


def _email(address: str) -> x509.RFC822Name:
    return x509.RFC822Name._init_without_validation(address)


def check_names(issuer: Facts, names: Iterable[x509.GeneralName]) -> None:
    """Raises CertificateError (SEC_ERROR_CERT_NOT_IN_NAME_SPACE)."""
    constraints = issuer.name_constraints
    if constraints is None:
        return
    for name in names:
        excluded = _of_kind(constraints.excluded_subtrees, name)
        permitted = _of_kind(constraints.permitted_subtrees, name)
        if any(_within(name, subtree) for subtree in excluded) or (
            permitted and not any(_within(name, subtree) for subtree in permitted)
        ):
            raise refusal(f"may not issue for {name.value}", "SEC_ERROR_CERT_NOT_IN_NAME_SPACE", issuer.certificate)


def _of_kind(subtrees: Sequence[x509.GeneralName] | None, name: x509.GeneralName) -> list[x509.GeneralName]:
    return [subtree for subtree in subtrees or () if type(subtree) is type(name) and type(name) in _RULES]


def _within(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    return _RULES[type(name)](name.value, subtree.value)


def _dns(name: str, subtree: str) -> bool:
    """`example.com` covers itself and `www.example.com`; `.example.com` covers only the latter; nothing covers all."""
    name, subtree = name.lower(), subtree.lower()
    before, found, after = name.rpartition(subtree)
    if not subtree or (found and not before and not after):
        return True
    return name.endswith(subtree) and before.endswith(".") is not subtree.startswith(".")


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
