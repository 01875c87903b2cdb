"""The cases: what NSS accepts and what it calls that which it refuses.  One line each."""

from __future__ import annotations

import ipaddress
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from .issuing import CA, CLIENT, DAY, NOW, SERVER, alternative, key_usage, name
from .nss_world import HOST, Case, Revocation, Shape

ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
CODE, EMAIL = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION
STEP_UP = x509.ObjectIdentifier("2.16.840.1.113730.4.1")
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
POLICIES = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.4"), None)])
ALGORITHM_DISABLED = "SEC_ERROR_CERT_SIGNATURE_ALGORITHM_DISABLED"


def path_length(length: int) -> x509.BasicConstraints:
    return x509.BasicConstraints(ca=True, path_length=length)


def purposes(*found: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage(found)


def netscape(bits: int) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.1"), bytes((3, 2, 0, bits)))


def root(*more: x509.ExtensionType, trust: str | None = "C", **shape: Any) -> Shape:
    return Shape((CA, *more), trust=trust, **shape)


def inter(*more: x509.ExtensionType, trust: str | None = "", **shape: Any) -> Shape:
    return Shape((CA, *more), trust=trust, **shape)


def leaf(*more: x509.ExtensionType, **shape: Any) -> Shape:
    return Shape((HOST, *more), **shape)


def permitted(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(names, None)


def excluded(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(None, names)


def dns(text: str) -> x509.DNSName:
    return x509.DNSName(text)


def net(text: str) -> x509.IPAddress:
    return x509.IPAddress(ipaddress.ip_network(text))


TRUST = [
    Case("three certificates"),
    Case("two certificates", inter=None),
    Case("client", usage="C", root=root(trust="CT")),
    Case("client of a CA for servers", "SEC_ERROR_UNTRUSTED_ISSUER", "C"),
    Case("client of a CA for clients", usage="C", root=root(trust="T")),
    Case("server of a CA for clients", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(trust="T")),
    Case("root without trust", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(trust="")),
    Case("root that is only valid", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(trust="c")),
    Case("root not there", "SEC_ERROR_UNKNOWN_ISSUER", root=root(trust=None)),
    Case("intermediate not there", "SEC_ERROR_UNKNOWN_ISSUER", inter=inter(trust=None)),
    Case("root distrusted", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(trust="p")),
    Case("intermediate distrusted", "SEC_ERROR_UNTRUSTED_ISSUER", inter=inter(trust="p")),
    Case("intermediate trusted", root=root(trust=""), inter=inter(trust="C")),
    Case("intermediate trusted without root", root=root(trust=None), inter=inter(trust="C")),
    Case("intermediate a trusted peer", inter=inter(trust="P")),
    Case("peer trusted", root=root(trust=None), leaf=leaf(trust="P")),
    Case("peer distrusted", "SEC_ERROR_UNTRUSTED_CERT", leaf=leaf(trust="p")),
    Case("peer trusted but expired", "SEC_ERROR_EXPIRED_CERTIFICATE", leaf=leaf(trust="P", end=NOW - DAY / 2)),
    Case("peer trusted but for clients", "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf=leaf(purposes(CLIENT), trust="P")),
    Case("peer that is a root", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(trust=""), leaf=leaf(trust="c")),
]

DATES = [
    Case("expired", "SEC_ERROR_EXPIRED_CERTIFICATE", leaf=leaf(end=NOW - DAY / 2)),
    Case("two days early", "SEC_ERROR_EXPIRED_CERTIFICATE", leaf=leaf(start=NOW + 2 * DAY)),
    Case("half a day early", leaf=leaf(start=NOW + DAY / 2)),
    Case("intermediate expired", "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE", inter=inter(end=NOW - DAY / 2)),
    Case("intermediate early", "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE", inter=inter(start=NOW + 2 * DAY)),
    Case("root expired", "SEC_ERROR_EXPIRED_ISSUER_CERTIFICATE", root=root(end=NOW - DAY / 2)),
    Case("expired and distrusted", "SEC_ERROR_EXPIRED_CERTIFICATE", leaf=leaf(end=NOW - DAY / 2, trust="p")),
]

AUTHORITY = [
    Case("issuer without basicConstraints", "SEC_ERROR_UNKNOWN_ISSUER", inter=Shape()),
    Case("issuer that is no CA", "SEC_ERROR_UNKNOWN_ISSUER", inter=Shape((NO_CA,))),
    Case("issuer that is no CA but trusted", "SEC_ERROR_CA_CERT_INVALID", inter=Shape((NO_CA,), trust="C")),
    Case("issuer without basicConstraints but trusted", inter=Shape(trust="C")),
    Case("issuer without basicConstraints but valid", inter=Shape(trust="c")),
    Case("issuer that may not sign certificates", "SEC_ERROR_INADEQUATE_KEY_USAGE", inter=inter(key_usage("crl_sign"))),
    Case("issuer that may not but is valid", inter=inter(key_usage("crl_sign"), trust="c")),
    Case("issuer that may sign certificates", inter=inter(key_usage("key_cert_sign"))),
    Case("root that may not sign certificates", root=root(key_usage("crl_sign"))),
    Case("root for no CA below", "SEC_ERROR_PATH_LEN_CONSTRAINT_INVALID", root=Shape((path_length(0),), trust="C")),
    Case("root for one CA below", root=Shape((path_length(1),), trust="C")),
    Case("intermediate for no CA below", inter=Shape((path_length(0),))),
    Case("CA for servers", inter=inter(purposes(SERVER))),
    Case("CA for clients", inter=inter(purposes(CLIENT))),
    Case("CA for code", "SEC_ERROR_CA_CERT_INVALID", inter=inter(purposes(CODE))),
    Case("CA for mail", "SEC_ERROR_CA_CERT_INVALID", inter=inter(purposes(EMAIL))),
    Case("CA for anything", "SEC_ERROR_CA_CERT_INVALID", inter=inter(purposes(ANY))),
    Case("CA for code and servers", inter=inter(purposes(CODE, SERVER))),
    Case("root for code", root=root(purposes(CODE))),
    Case("netscape CA", inter=Shape((netscape(0x04),))),
    Case("netscape CA for mail", "SEC_ERROR_CA_CERT_INVALID", inter=Shape((CA, netscape(0x02)))),
    Case("version 1 root", root=root(version1=True)),
    Case("version 1 root without trust", "SEC_ERROR_UNTRUSTED_ISSUER", root=root(version1=True, trust="")),
    Case("version 1 intermediate", "SEC_ERROR_UNKNOWN_ISSUER", inter=inter(version1=True)),
    Case("version 1 intermediate that is trusted", inter=inter(version1=True, trust="C")),
    Case("version 1 peer", leaf=leaf(version1=True)),
    Case("CA", usage="L", leaf=Shape((CA,))),
    Case("CA that is trusted", usage="L", inter=None, leaf=Shape((CA,), trust="C")),
    Case("CA that is distrusted", "SEC_ERROR_UNTRUSTED_CERT", "L", leaf=Shape((CA,), trust="p")),
    Case("CA that is none", "SEC_ERROR_INADEQUATE_CERT_TYPE", "L"),
    Case("CA that may not sign", "SEC_ERROR_INADEQUATE_KEY_USAGE", "L", leaf=Shape((CA, key_usage("crl_sign")))),
    Case("CA as a server", leaf=Shape((CA,))),
]

PURPOSES = [
    Case("server", leaf=leaf(purposes(SERVER))),
    Case("server as client", "SEC_ERROR_INADEQUATE_CERT_TYPE", "C", root(trust="CT"), leaf=leaf(purposes(SERVER))),
    Case("client as client", usage="C", root=root(trust="CT"), leaf=leaf(purposes(CLIENT))),
    Case("client as server", "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf=leaf(purposes(CLIENT))),
    Case("anything as server", "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf=leaf(purposes(ANY))),
    Case("step-up server", leaf=leaf(purposes(STEP_UP))),
    Case("netscape server", leaf=leaf(netscape(0x40))),
    Case("netscape client as server", "SEC_ERROR_INADEQUATE_CERT_TYPE", leaf=leaf(netscape(0x80))),
    Case("RSA server that signs", "SEC_ERROR_INADEQUATE_KEY_USAGE", leaf=leaf(key_usage("digital_signature"), kind="rsa")),
    Case("RSA server that decrypts", leaf=leaf(key_usage("key_encipherment"), kind="rsa")),
    Case("EC server that signs", leaf=leaf(key_usage("digital_signature"))),
    Case("EC server that agrees", leaf=leaf(key_usage("key_agreement"))),
    Case("EC server that decrypts", "SEC_ERROR_INADEQUATE_KEY_USAGE", leaf=leaf(key_usage("key_encipherment"))),
    Case("DSA server", leaf=leaf(kind="dsa1024")),
    Case(
        "client that decrypts", "SEC_ERROR_INADEQUATE_KEY_USAGE", "C", root(trust="CT"), leaf=leaf(key_usage("key_encipherment"))
    ),
]

SIGNATURES = [
    Case("SHA-1", leaf=leaf(digest="sha1")),
    Case("SHA-1 by RSA", inter=inter(kind="rsa", digest="sha1"), leaf=leaf(digest="sha1")),
    Case("MD5", ALGORITHM_DISABLED, inter=inter(kind="rsa"), leaf=leaf(digest="md5")),
    Case("MD5 below the root", ALGORITHM_DISABLED, root=root(kind="rsa"), inter=inter(digest="md5")),
    Case("RSA 1024", inter=inter(kind="rsa1024")),
    Case("RSA-PSS", inter=inter(kind="rsa"), leaf=leaf(digest="pss")),
    Case("DSA", inter=inter(kind="dsa1024")),
    Case("DSA with SHA-1", inter=inter(kind="dsa1024"), leaf=leaf(digest="sha1")),
    Case("P-384", inter=inter(kind="p384")),
    Case(
        "Koblitz curve",
        ALGORITHM_DISABLED,
        inter=inter(kind="k1"),
        tools="SEC_ERROR_BAD_SIGNATURE",
        why="NSS knows the curve's name but cannot reckon with it; the signature may well be good",
    ),
    Case("Brainpool curve", ALGORITHM_DISABLED, inter=inter(kind="b256")),
    Case("damaged", "SEC_ERROR_BAD_SIGNATURE", leaf=leaf(damaged=True)),
    Case("intermediate damaged", "SEC_ERROR_BAD_SIGNATURE", inter=inter(damaged=True)),
    Case("two algorithms", "SEC_ERROR_ALGORITHM_MISMATCH", leaf=leaf(contradictory=True)),
    Case("forged", "SEC_ERROR_BAD_SIGNATURE", leaf=leaf(forged=True)),
    Case("intermediate forged", "SEC_ERROR_BAD_SIGNATURE", inter=inter(forged=True)),
]

OTHERS = "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION"
URI = x509.UniformResourceIdentifier("http://ca.example/")
CRITICAL: list[tuple[x509.ExtensionType, str]] = [
    (POLICIES, OTHERS),
    (x509.SubjectKeyIdentifier(b"one"), ""),
    (x509.AuthorityKeyIdentifier(b"one", None, None), ""),
    (x509.IssuerAlternativeName([URI]), OTHERS),
    (x509.AuthorityInformationAccess([x509.AccessDescription(x509.AuthorityInformationAccessOID.OCSP, URI)]), ""),
    (x509.CRLDistributionPoints([x509.DistributionPoint([URI], None, None, None)]), OTHERS),
    (x509.PolicyConstraints(0, None), OTHERS),
    (x509.InhibitAnyPolicy(0), OTHERS),
    (x509.TLSFeature([x509.TLSFeatureType.status_request]), OTHERS),
    (x509.OCSPNoCheck(), ""),
]
EXTENSIONS = [
    Case("unknown critical", "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION", leaf=leaf(UNKNOWN, critical=(x509.UnrecognizedExtension,))),
    Case("unknown", leaf=leaf(UNKNOWN)),
    Case(
        "unknown critical in the intermediate",
        "SEC_ERROR_UNKNOWN_CRITICAL_EXTENSION",
        inter=inter(UNKNOWN, critical=(x509.UnrecognizedExtension,)),
    ),
    Case("unknown critical in the root", root=root(UNKNOWN, critical=(x509.UnrecognizedExtension,))),
    *(Case(f"critical {type(one).__name__}", expected, leaf=leaf(one, critical=(type(one),))) for one, expected in CRITICAL),
    Case("critical names and usages", leaf=leaf(purposes(SERVER), critical=(x509.SubjectAlternativeName, x509.ExtendedKeyUsage))),
]

NAME_SPACE = "SEC_ERROR_CERT_NOT_IN_NAME_SPACE"
CONSTRAINTS = [
    Case("host permitted", inter=inter(permitted(dns("example")))),
    Case("host permitted by name", inter=inter(permitted(dns("host.example")))),
    Case("host permitted below a dot", inter=inter(permitted(dns(".example")))),
    Case("host not permitted", NAME_SPACE, inter=inter(permitted(dns("test")))),
    Case("host with an end that is permitted", NAME_SPACE, inter=inter(permitted(dns("st.example")))),
    Case("host excluded", NAME_SPACE, inter=inter(excluded(dns("example")))),
    Case("another host excluded", inter=inter(excluded(dns("other.example")))),
    Case(
        "host excluded that a wildcard stands for",
        NAME_SPACE,
        inter=inter(excluded(dns("www.host.example"))),
        leaf=Shape((alternative("*.host.example"),)),
        tools="",
        why="NSS compares the wildcard as if it were a label; the certificate would be good for the host that is excluded",
    ),
    Case(
        "host excluded where a wildcard stands for others",
        inter=inter(excluded(dns("www.other.example"))),
        leaf=Shape((alternative("*.host.example"),)),
    ),
    Case("host not permitted by the root", NAME_SPACE, root=root(permitted(dns("test")))),
    Case("address permitted", inter=inter(permitted(net("192.0.2.0/24"))), leaf=Shape((alternative("192.0.2.1"),))),
    Case(
        "address not permitted",
        NAME_SPACE,
        inter=inter(permitted(net("192.0.2.0/24"))),
        leaf=Shape((alternative("198.51.100.1"),)),
    ),
    Case("address excluded", NAME_SPACE, inter=inter(excluded(net("2001:db8::/32"))), leaf=Shape((alternative("2001:db8::1"),))),
    Case("address where hosts are permitted", inter=inter(permitted(dns("test"))), leaf=Shape((alternative("192.0.2.1"),))),
    Case("common name not permitted", NAME_SPACE, inter=inter(permitted(dns("test"))), leaf=Shape()),
    Case("common name of a client", usage="C", root=root(trust="CT"), inter=inter(permitted(dns("test"))), leaf=Shape()),
    Case("subject not permitted", NAME_SPACE, inter=inter(permitted(x509.DirectoryName(name("other"))))),
    Case("mail where it does not matter", inter=inter(permitted(x509.RFC822Name("test")))),
]

# a name of the leaf, a constraint on such names, and whether the name is within it
WITHIN: list[tuple[x509.GeneralName, x509.GeneralName, bool]] = [
    (dns("host.example"), dns(""), True),
    (dns("HOST.Example"), dns("hosT.eXample"), True),
    (dns("ahost.example"), dns("host.example"), False),
    (dns("host.example"), dns(".host.example"), False),
    (dns("a.b.host.example"), dns(".host.example"), True),
    (dns("*.example"), dns("host.example"), False),
    (x509.RFC822Name("me@host.example"), x509.RFC822Name("host.example"), True),
    (x509.RFC822Name("me@host.example"), x509.RFC822Name("example"), False),
    (x509.RFC822Name("me@host.example"), x509.RFC822Name(".example"), True),
    (x509.RFC822Name("me@host.example"), x509.RFC822Name("ME@host.example"), True),
    (x509.RFC822Name("me@host.example"), x509.RFC822Name("you@host.example"), False),
    (x509.UniformResourceIdentifier("https://host.example/"), x509.UniformResourceIdentifier("host.example"), True),
    (x509.UniformResourceIdentifier("https://a@host.example:443/b"), x509.UniformResourceIdentifier("host.example"), True),
    (x509.UniformResourceIdentifier("https://host.example/"), x509.UniformResourceIdentifier(".example"), True),
    (x509.UniformResourceIdentifier("https://host.example/"), x509.UniformResourceIdentifier("example"), False),
    (x509.IPAddress(ipaddress.ip_address("192.0.2.129")), net("192.0.2.128/25"), True),
    (x509.IPAddress(ipaddress.ip_address("192.0.2.1")), net("192.0.2.128/25"), False),
    (x509.IPAddress(ipaddress.ip_address("192.0.2.1")), net("::/0"), False),
    (x509.DirectoryName(name("a")), x509.DirectoryName(x509.Name([])), True),
    (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), x509.RegisteredID(x509.ObjectIdentifier("1.2.4")), True),
]
for number, (one, subtree, within) in enumerate(WITHIN):
    of = Shape((x509.SubjectAlternativeName([one]),))
    CONSTRAINTS.append(Case(f"within {number}", "" if within else NAME_SPACE, inter=inter(permitted(subtree)), leaf=of))

KEYS = x509.SubjectKeyIdentifier(b"one"), x509.SubjectKeyIdentifier(b"two")


def by(identifier: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(identifier, None, None)


CHOICE = [
    Case("key identifier", inter=inter(KEYS[0]), leaf=leaf(by(b"one"))),
    Case("another key identifier", "SEC_ERROR_UNKNOWN_ISSUER", inter=inter(KEYS[0]), leaf=leaf(by(b"two"))),
    Case("key identifier of an issuer without", leaf=leaf(by(b"two"))),
    Case("issuer of two by key identifier", inter=inter(KEYS[0]), leaf=leaf(by(b"one")), strangers=(inter(KEYS[1], start=NOW),)),
    Case("issuer of two by validity", strangers=(inter(start=NOW - DAY / 2, end=NOW - DAY / 4),)),
    Case("issuer of two by trust", inter=inter(trust="C"), strangers=(inter(start=NOW - DAY / 2),)),
    Case(
        "issuer of two by signature",
        strangers=(inter(start=NOW - DAY / 2),),
        tools="SEC_ERROR_BAD_SIGNATURE",
        why="NSS tries one issuer only, the newest of the name; the next one signed this certificate",
    ),
]

USERS_ONLY = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
CRLS = [
    Case("revoked", "SEC_ERROR_REVOKED_CERTIFICATE", revoked=(Revocation(),)),
    Case("intermediate revoked", "SEC_ERROR_REVOKED_CERTIFICATE", revoked=(Revocation(2),)),
    Case("to be revoked", revoked=(Revocation(at=NOW + DAY / 2),)),
    Case("revoked in an old list", "SEC_ERROR_REVOKED_CERTIFICATE", revoked=(Revocation(start=NOW - 9 * DAY, end=NOW - DAY),)),
    Case("revoked in a forged list", revoked=(Revocation(forged=True),)),
    Case(
        "revoked by who may not",
        "SEC_ERROR_REVOKED_CERTIFICATE",
        inter=inter(key_usage("key_cert_sign")),
        revoked=(Revocation(),),
    ),
    Case(
        "revoked by who may",
        "SEC_ERROR_REVOKED_CERTIFICATE",
        inter=inter(key_usage("key_cert_sign", "crl_sign")),
        revoked=(Revocation(),),
    ),
    Case("revoked but trusted", leaf=leaf(trust="P"), revoked=(Revocation(),)),
]

CASES = [*TRUST, *DATES, *AUTHORITY, *PURPOSES, *SIGNATURES, *EXTENSIONS, *CONSTRAINTS, *CHOICE, *CRLS]

# What NSS's tools will not put into a database: keys newer than Debian 12's NSS (3.87), lists that NSS does not understand.
NOT_KEPT = [
    Case("revoked in a list for users only", revoked=(Revocation(critical=USERS_ONLY),)),
    Case("Ed25519", inter=inter(kind="ed25519"), leaf=leaf(kind="ed25519")),
    Case("Ed25519 that only agrees", "SEC_ERROR_INADEQUATE_KEY_USAGE", leaf=leaf(key_usage("key_agreement"), kind="ed25519")),
    Case("ML-DSA", root=root(kind="mldsa65"), inter=inter(kind="mldsa44")),
]
