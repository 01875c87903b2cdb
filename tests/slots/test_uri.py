"""RFC 7512, its own examples first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nss_pk11.errors import ConfigurationError
from nss_pk11.pins import PinRequest
from nss_pk11.slots import TokenInfo, Uri, is_uri

# RFC 7512 section 3
EXAMPLES = [
    ("pkcs11:", Uri()),
    (
        "pkcs11:object=my-pubkey;type=public",
        Uri(object="my-pubkey", type="public"),
    ),
    (
        "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
        Uri(object="my-key", type="private", pin_source="file:/etc/token"),
    ),
    (
        "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;"
        "manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;"
        "id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
        Uri(
            token="The Software PKCS#11 Softtoken",
            manufacturer="Snake Oil, Inc.",
            model="1.0",
            object="my-certificate",
            type="cert",
            id=bytes.fromhex("69953e5cf4bdec91"),
            serial="",
            pin_source="file:/etc/token_pin",
        ),
    ),
    (
        "pkcs11:object=my-sign-key;type=private?module-name=mypkcs11",
        Uri(object="my-sign-key", type="private", module_name="mypkcs11"),
    ),
    (
        "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
        Uri(object="my-sign-key", type="private", module_path="/mnt/libmypkcs11.so.1"),
    ),
    (
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin",
        Uri(token="Software PKCS#11 softtoken", manufacturer="Snake Oil, Inc.", pin_value="the-pin"),
    ),
    (
        "pkcs11:slot-description=Sun%20Metaslot",
        Uri(slot_description="Sun Metaslot"),
    ),
    (
        "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;"
        "library-version=1.23;slot-id=327",
        Uri(
            library_manufacturer="Snake Oil, Inc.",
            library_description="Soft Token Library",
            library_version=(1, 23),
            slot_id=327,
        ),
    ),
    (
        "pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
        Uri(token="My token% created by Joe", library_version=(3, 0), id=bytes.fromhex("010203baddcafe040506")),
    ),
    (
        "pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
        Uri(token="A name with a substring %;", object="my-certificate", type="cert"),
    ),
    (
        "pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
        Uri(token="Name with a small A with acute: á", object="my-certificate", type="cert"),
    ),
    (
        "pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a?pin-source=file:/etc/token_pin&vendor-bbb=value-b",
        Uri(
            token="my-token",
            object="my-certificate",
            type="cert",
            vendor=(("vendor-aaa", "value-a"),),
            pin_source="file:/etc/token_pin",
            vendor_query=(("vendor-bbb", "value-b"),),
        ),
    ),
]


@pytest.mark.parametrize(("text", "uri"), EXAMPLES)
def test_examples_of_the_rfc(text: str, uri: Uri) -> None:
    assert Uri.parse(text) == uri
    assert Uri.parse(uri.text(secrets=True)) == uri


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("http://localhost/", "begins with pkcs11:"),
        ("pkcs11:token=a;token=b", "token is given twice"),
        ("pkcs11:x-a=1;x-a=2", "x-a is given twice"),
        ("pkcs11:?module-path=/a&module-path=/b", "module-path is given twice"),
        ("pkcs11:token=a?pin-value=1&pin-source=/f", "exclude each other"),
        ("pkcs11:token=a b", "percent-encoded"),
        ("pkcs11:token=a/b", "percent-encoded"),
        ("pkcs11:token=50%", "percent-encoding"),
        ("pkcs11:token=%zz", "percent-encoding"),
        ("pkcs11:token=%FF", "not UTF-8"),
        ("pkcs11:type=secret", "type is one of"),
        ("pkcs11:slot-id=x", "decimal"),
        ("pkcs11:slot-id=", "decimal"),
        ("pkcs11:library-version=1.2.3", "MAJOR"),
        ("pkcs11:library-version=300", "MAJOR"),
        ("pkcs11:token", "name=value"),
        ("pkcs11:;", "name=value"),
        ("pkcs11:to ken=a", "name=value"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigurationError, match=part):
        Uri.parse(text)


def test_scheme_in_any_case() -> None:
    assert Uri.parse("PKCS11:token=a") == Uri(token="a")
    assert is_uri("PkCs11:")
    assert not is_uri("/etc/key.pem")


def test_query_takes_what_a_path_does_not() -> None:
    assert Uri.parse("pkcs11:?pin-source=|/bin/pin%20-x?&vendor=a&vendor=b") == Uri(
        pin_source="|/bin/pin -x?", vendor_query=(("vendor", "a"), ("vendor", "b"))
    )


def test_pin_is_hidden() -> None:
    uri = Uri.parse("pkcs11:token=a?pin-value=sesame&module-path=/m.so")
    assert "sesame" not in f"{uri}{uri!r}{uri.provider()!r}"
    assert str(uri) == "pkcs11:token=a?module-path=/m.so"
    for text in ("pkcs11:token=a?pin-value=ses%ame", "pkcs11:token=a;token=b?pin-value=sesame", "pkcs11:?pin-value=sesame&x"):
        with pytest.raises(ConfigurationError) as caught:
            Uri.parse(text)
        assert "ses" not in str(caught.value)


def test_pin_sources(tmp_path: object) -> None:
    path = f"{tmp_path}/a pin"
    with open(path, "w") as stream:
        stream.write("4711\nnot this\n")
    quoted = path.replace(" ", "%20")
    for source in (f"file:{quoted.replace('%', '%25')}", f"file://{quoted.replace('%', '%25')}", quoted, f"|cat%20'{quoted}'"):
        provider = Uri.parse(f"pkcs11:token=a?pin-source={source}").provider()
        assert provider is not None
        assert not provider.person
        assert provider(PinRequest("a")) == "4711", source
    assert Uri.parse("pkcs11:token=a").provider() is None


def test_absent_matches_all_and_empty_matches_only_empty() -> None:
    info = TokenInfo("web", serial="17")
    assert Uri().matches_token(info)
    assert Uri(token="web", serial="17").matches_token(info)
    assert not Uri(token="").matches_token(info)
    assert not Uri(token="web", model="x").matches_token(info)
    assert Uri(id=b"", object="o").matches_object("o", b"")
    assert not Uri(id=b"").matches_object("o", b"\1")


text = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    st.builds(
        Uri,
        token=st.none() | text,
        object=st.none() | text,
        type=st.sampled_from([None, "private", "cert", "public", "secret-key", "data"]),
        id=st.none() | st.binary(max_size=20),
        serial=st.none() | text,
        slot_id=st.none() | st.integers(0, 2**64 - 1),
        library_version=st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255)),
        module_path=st.none() | text,
        pin_value=st.none() | text,
        vendor=st.just(()) | st.tuples(st.tuples(st.just("x-vendor"), text)),
        vendor_query=st.lists(st.tuples(st.just("x-query"), text), max_size=3).map(tuple),
    )
)
def test_written_and_read_again(uri: Uri) -> None:
    assert Uri.parse(uri.text(secrets=True)) == uri


@given(text | st.text("pkcs11:token=;?&%aF", max_size=30).map("pkcs11:".__add__))
def test_anything_else_is_a_configuration_error(anything: str) -> None:
    try:
        uri = Uri.parse(anything)
    except ConfigurationError:
        return
    assert Uri.parse(uri.text(secrets=True)) == uri
