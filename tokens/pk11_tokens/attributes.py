"""Which attributes an object has, and what a template may say of them: the tables of PKCS #11, footnotes included.

Pure rules over values; no object is kept here (`objects`), no key is loaded (`keytypes`).
Sources: PKCS #11 2.40 section 4 and 3.1 section 4 (objects), 3.1 section 6 (key types), 3.2 (ML-DSA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from .abi import CKA, CKC, CKK, CKO, CKR, ULONG, UNAVAILABLE_INFORMATION, Refused

Template = Iterable[tuple[int, bytes]]

TRUE, FALSE = b"\1", b"\0"
BOOL, NUMBER, ANY = 1, ULONG.size, 0  # bytes of a value
_NONE = ULONG.pack(UNAVAILABLE_INFORMATION)


class Purpose(IntEnum):
    """What a template is for."""

    CREATE = 0
    GENERATE = 1
    UNWRAP = 2
    DERIVE = 3


@dataclass(frozen=True)
class Rule:
    """What an attribute is.

    `size`: bytes of its value, ANY for those of any length.  `notes`: the numbers of the footnotes in the tables of PKCS #11
    (3.1 section 4.2, table 13).  `default`: the value where no template says one; None: then the object lacks it.
    """

    size: int = ANY
    notes: tuple[int, ...] = ()
    default: bytes | None = b""


# Table 13, by the numbers of its footnotes.
_MUST = {Purpose.CREATE: 1, Purpose.GENERATE: 3, Purpose.UNWRAP: 5}
# A derived key may be given its length, else it is like a generated one.
_MUST_NOT = {Purpose.CREATE: 2, Purpose.GENERATE: 4, Purpose.UNWRAP: 6, Purpose.DERIVE: 4}
SECRET, MODIFIABLE, ONLY_BY_SO, STAYS_TRUE, STAYS_FALSE = 7, 8, 10, 11, 12

Rules = dict[int, Rule]


def _flag(default: bytes, *notes: int) -> Rule:
    return Rule(BOOL, notes, default)


def _uses(*attributes: int) -> dict[int, Rule]:
    """Uses that a key of this type is good for; granted where no template says otherwise (footnote 9)."""
    return {attribute: _flag(TRUE, MODIFIABLE) for attribute in attributes}


_STORAGE: Rules = {
    CKA.CLASS: Rule(NUMBER, (1,)),
    CKA.TOKEN: _flag(FALSE),
    CKA.PRIVATE: _flag(FALSE),
    CKA.MODIFIABLE: _flag(TRUE),
    CKA.COPYABLE: _flag(TRUE, STAYS_FALSE),
    CKA.DESTROYABLE: _flag(TRUE),
    CKA.LABEL: Rule(ANY, (MODIFIABLE,)),
}
_KEY: Rules = _STORAGE | {
    CKA.KEY_TYPE: Rule(NUMBER, (1, 5)),
    CKA.ID: Rule(ANY, (MODIFIABLE,)),
    CKA.START_DATE: Rule(ANY, (MODIFIABLE,)),
    CKA.END_DATE: Rule(ANY, (MODIFIABLE,)),
    CKA.DERIVE: _flag(FALSE, MODIFIABLE),
    CKA.LOCAL: _flag(FALSE, 2, 4, 6),
    CKA.KEY_GEN_MECHANISM: Rule(NUMBER, (2, 4, 6), _NONE),
    CKA.ALLOWED_MECHANISMS: Rule(),
}
_PUBLIC: Rules = _KEY | {
    CKA.SUBJECT: Rule(ANY, (MODIFIABLE,)),
    CKA.ENCRYPT: _flag(FALSE, MODIFIABLE),
    CKA.VERIFY: _flag(FALSE, MODIFIABLE),
    CKA.VERIFY_RECOVER: _flag(FALSE, MODIFIABLE),
    CKA.WRAP: _flag(FALSE, MODIFIABLE),
    CKA.TRUSTED: _flag(FALSE, MODIFIABLE, ONLY_BY_SO),
    CKA.PUBLIC_KEY_INFO: Rule(ANY, (2, 4, 6)),
}
_KEPT_SECRET: Rules = {
    CKA.PRIVATE: _flag(TRUE),
    CKA.SENSITIVE: _flag(TRUE, MODIFIABLE, STAYS_TRUE),
    CKA.EXTRACTABLE: _flag(FALSE, MODIFIABLE, STAYS_FALSE),
    CKA.ALWAYS_SENSITIVE: _flag(FALSE, 2, 4, 6),
    CKA.NEVER_EXTRACTABLE: _flag(FALSE, 2, 4, 6),
    CKA.WRAP_WITH_TRUSTED: _flag(FALSE, MODIFIABLE, STAYS_TRUE),
}
_PRIVATE: Rules = (
    _KEY
    | _KEPT_SECRET
    | {
        CKA.SUBJECT: Rule(ANY, (MODIFIABLE,)),
        CKA.DECRYPT: _flag(FALSE, MODIFIABLE),
        CKA.SIGN: _flag(FALSE, MODIFIABLE),
        CKA.SIGN_RECOVER: _flag(FALSE, MODIFIABLE),
        CKA.UNWRAP: _flag(FALSE, MODIFIABLE),
        CKA.ALWAYS_AUTHENTICATE: _flag(FALSE),
        CKA.PUBLIC_KEY_INFO: Rule(ANY, (MODIFIABLE,)),
    }
)
_SECRET_KEY: Rules = (
    _KEY
    | _KEPT_SECRET
    | {
        CKA.ENCRYPT: _flag(FALSE, MODIFIABLE),
        CKA.DECRYPT: _flag(FALSE, MODIFIABLE),
        CKA.SIGN: _flag(FALSE, MODIFIABLE),
        CKA.VERIFY: _flag(FALSE, MODIFIABLE),
        CKA.WRAP: _flag(FALSE, MODIFIABLE),
        CKA.UNWRAP: _flag(FALSE, MODIFIABLE),
        CKA.TRUSTED: _flag(FALSE, MODIFIABLE, ONLY_BY_SO),
        CKA.CHECK_VALUE: Rule(),
        CKA.VALUE: Rule(ANY, (1, 4, 6, SECRET)),
        CKA.VALUE_LEN: Rule(NUMBER, (2, 3)),
    }
)
_SECRET_PART = Rule(ANY, (4, 6, SECRET), None)
_DATA: Rules = _STORAGE | dict.fromkeys((CKA.APPLICATION, CKA.OBJECT_ID, CKA.VALUE), Rule(ANY, (MODIFIABLE,)))
_X_509: Rules = _STORAGE | {
    CKA.CERTIFICATE_TYPE: Rule(NUMBER, (1,)),
    CKA.TRUSTED: _flag(FALSE, MODIFIABLE, ONLY_BY_SO),
    CKA.CERTIFICATE_CATEGORY: Rule(NUMBER, (), ULONG.pack(0)),
    CKA.CHECK_VALUE: Rule(),
    CKA.START_DATE: Rule(),
    CKA.END_DATE: Rule(),
    CKA.PUBLIC_KEY_INFO: Rule(),
    CKA.SUBJECT: Rule(ANY, (1,)),
    CKA.ID: Rule(ANY, (MODIFIABLE,)),
    CKA.ISSUER: Rule(ANY, (MODIFIABLE,)),
    CKA.SERIAL_NUMBER: Rule(ANY, (MODIFIABLE,)),
    CKA.VALUE: Rule(ANY, (1,)),
    CKA.URL: Rule(),
    CKA.HASH_OF_SUBJECT_PUBLIC_KEY: Rule(),
    CKA.HASH_OF_ISSUER_PUBLIC_KEY: Rule(),
    CKA.JAVA_MIDP_SECURITY_DOMAIN: Rule(NUMBER, (), ULONG.pack(0)),
}
_DOMAIN = (CKA.PRIME, CKA.SUBPRIME, CKA.BASE)
_EC_PUBLIC: Rules = {CKA.EC_PARAMS: Rule(ANY, (1, 3)), CKA.EC_POINT: Rule(ANY, (1, 4))}
_EC_PRIVATE: Rules = {CKA.EC_PARAMS: Rule(ANY, (1, 4, 6)), CKA.VALUE: Rule(ANY, (1, 4, 6, SECRET))}

# By class and by type of key or certificate.  A card with key types of its own adds rows.
RULES: dict[tuple[int, int], Rules] = {
    (CKO.DATA, 0): _DATA,
    (CKO.CERTIFICATE, CKC.X_509): _X_509,
    (CKO.PUBLIC_KEY, CKK.RSA): _PUBLIC
    | {
        CKA.MODULUS: Rule(ANY, (1, 4)),
        CKA.MODULUS_BITS: Rule(NUMBER, (2, 3)),
        CKA.PUBLIC_EXPONENT: Rule(ANY, (1,)),
    }
    | _uses(CKA.ENCRYPT, CKA.VERIFY, CKA.WRAP),
    (CKO.PRIVATE_KEY, CKK.RSA): _PRIVATE
    | {
        CKA.MODULUS: Rule(ANY, (1, 4, 6)),
        CKA.PUBLIC_EXPONENT: Rule(ANY, (1, 4, 6)),
        CKA.PRIVATE_EXPONENT: Rule(ANY, (1, 4, 6, SECRET)),
    }
    | dict.fromkeys((CKA.PRIME_1, CKA.PRIME_2, CKA.EXPONENT_1, CKA.EXPONENT_2, CKA.COEFFICIENT), _SECRET_PART)
    | _uses(CKA.DECRYPT, CKA.SIGN, CKA.UNWRAP),
    (CKO.PUBLIC_KEY, CKK.DSA): _PUBLIC
    | dict.fromkeys(_DOMAIN, Rule(ANY, (1, 3)))
    | {CKA.VALUE: Rule(ANY, (1, 4))}
    | _uses(CKA.VERIFY),
    (CKO.PRIVATE_KEY, CKK.DSA): _PRIVATE
    | dict.fromkeys(_DOMAIN, Rule(ANY, (1, 4, 6)))
    | {CKA.VALUE: Rule(ANY, (1, 4, 6, SECRET))}
    | _uses(CKA.SIGN),
    (CKO.PUBLIC_KEY, CKK.EC): _PUBLIC | _EC_PUBLIC | _uses(CKA.VERIFY),
    (CKO.PRIVATE_KEY, CKK.EC): _PRIVATE | _EC_PRIVATE | _uses(CKA.SIGN),
    (CKO.PUBLIC_KEY, CKK.EC_EDWARDS): _PUBLIC | _EC_PUBLIC | _uses(CKA.VERIFY),
    (CKO.PRIVATE_KEY, CKK.EC_EDWARDS): _PRIVATE | _EC_PRIVATE | _uses(CKA.SIGN),
    (CKO.PUBLIC_KEY, CKK.ML_DSA): _PUBLIC
    | {CKA.PARAMETER_SET: Rule(NUMBER, (1, 3)), CKA.VALUE: Rule(ANY, (1, 4))}
    | _uses(CKA.VERIFY),
    (CKO.PRIVATE_KEY, CKK.ML_DSA): _PRIVATE
    | {CKA.PARAMETER_SET: Rule(NUMBER, (1, 4, 6)), CKA.SEED: Rule(ANY, (1, 4, 6, SECRET))}
    | _uses(CKA.SIGN),
    # Keys of KEA and Skipjack are made on the card, agreed on, or unwrapped; nobody brings one in the clear (footnote 2).
    (CKO.PUBLIC_KEY, CKK.KEA): _PUBLIC
    | dict.fromkeys(_DOMAIN, Rule(ANY, (1, 3)))
    | {CKA.VALUE: Rule(ANY, (1, 4))}
    | _uses(CKA.DERIVE),
    (CKO.PRIVATE_KEY, CKK.KEA): _PRIVATE
    | dict.fromkeys(_DOMAIN, Rule(ANY, (1, 4, 6)))
    | {CKA.VALUE: Rule(ANY, (1, 2, 4, 6, SECRET))}
    | _uses(CKA.DERIVE),
    (CKO.SECRET_KEY, CKK.SKIPJACK): _SECRET_KEY
    | {
        CKA.EXTRACTABLE: _flag(TRUE, MODIFIABLE, STAYS_FALSE),  # that is: may be wrapped
        CKA.VALUE: Rule(ANY, (1, 2, 4, 6, SECRET)),
        CKA.VALUE_LEN: Rule(NUMBER, (2,), ULONG.pack(12)),
    }
    | _uses(CKA.ENCRYPT, CKA.DECRYPT, CKA.WRAP, CKA.UNWRAP),
    (CKO.SECRET_KEY, CKK.AES): _SECRET_KEY
    | {CKA.VALUE_LEN: Rule(NUMBER, (2, 3, 6))}
    | _uses(CKA.ENCRYPT, CKA.DECRYPT, CKA.SIGN, CKA.VERIFY, CKA.WRAP, CKA.UNWRAP),
    (CKO.SECRET_KEY, CKK.GENERIC_SECRET): _SECRET_KEY | _uses(CKA.SIGN, CKA.VERIFY),
}
for _kind in (CKK.SHA_1_HMAC, CKK.SHA224_HMAC, CKK.SHA256_HMAC, CKK.SHA384_HMAC, CKK.SHA512_HMAC):
    RULES[CKO.SECRET_KEY, _kind] = RULES[CKO.SECRET_KEY, CKK.GENERIC_SECRET]

# What tells objects of one class apart, where the class alone does not tell what an object has.
_SUBTYPE = {
    CKO.CERTIFICATE: CKA.CERTIFICATE_TYPE,
    CKO.PUBLIC_KEY: CKA.KEY_TYPE,
    CKO.PRIVATE_KEY: CKA.KEY_TYPE,
    CKO.SECRET_KEY: CKA.KEY_TYPE,
}


def rules_of(values: Mapping[int, bytes]) -> Rules:
    """The rules for an object with this class and type.

    Raises Refused(CKR_TEMPLATE_INCOMPLETE) where they are not given, CKR_ATTRIBUTE_VALUE_INVALID for those that no token
    here keeps.
    """
    kind = _number(values, CKA.CLASS)
    subtype = _SUBTYPE.get(CKO(kind)) if kind in _SUBTYPE else None
    rules = RULES.get((kind, 0 if subtype is None else _number(values, subtype)))
    if rules is None:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID)
    return rules


def _number(values: Mapping[int, bytes], attribute: int) -> int:
    value = values.get(attribute)
    if value is None:
        raise Refused(CKR.TEMPLATE_INCOMPLETE)
    if len(value) != ULONG.size:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID)
    return int(ULONG.unpack(value)[0])


def distinct(template: Template) -> dict[int, bytes]:
    """A template as a mapping.  Raises Refused(CKR_TEMPLATE_INCONSISTENT) where it names an attribute twice."""
    values: dict[int, bytes] = {}
    for attribute, value in template:
        if values.setdefault(attribute, value) != value:
            raise Refused(CKR.TEMPLATE_INCONSISTENT)
    return values


def complete(template: Template, purpose: Purpose, fixed: Mapping[int, bytes]) -> dict[int, bytes]:
    """The attributes of a new object: what the template says, `fixed` by the function or mechanism, and defaults.

    Raises Refused: CKR_TEMPLATE_INCONSISTENT, CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID, CKR_ATTRIBUTE_READ_ONLY (section 4.1.1).
    """
    given = distinct(template)
    if any(given.get(attribute, value) != value for attribute, value in fixed.items()):
        raise Refused(CKR.TEMPLATE_INCONSISTENT)
    given |= fixed
    rules = rules_of(given)
    for attribute, value in given.items():
        rule = _rule(rules, attribute)
        if _MUST_NOT[purpose] in rule.notes and attribute not in fixed:
            raise Refused(CKR.ATTRIBUTE_READ_ONLY)
        _check(rule, value)
    must = _MUST.get(purpose)
    if any(must in rule.notes and attribute not in given for attribute, rule in rules.items()):
        raise Refused(CKR.TEMPLATE_INCOMPLETE)
    defaults = {attribute: rule.default for attribute, rule in rules.items() if rule.default is not None}
    return defaults | given


def change(values: Mapping[int, bytes], template: Template, *, copying: bool = False) -> dict[int, bytes]:
    """What of `template` is to be changed in an object with these values (C_SetAttributeValue, C_CopyObject).

    A copy may also become a token or session object, private, unmodifiable, indestructible (section 5.7.2).
    Raises Refused: CKR_ATTRIBUTE_READ_ONLY, CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_TEMPLATE_INCONSISTENT.
    """
    given = distinct(template)
    rules = rules_of(values)
    for attribute, value in given.items():
        rule = _rule(rules, attribute)
        _check(rule, value)
        before = values.get(attribute)
        if value == before:
            continue
        stays = (STAYS_TRUE in rule.notes and before == TRUE) or (STAYS_FALSE in rule.notes and before == FALSE)
        if stays or not (MODIFIABLE in rule.notes or (copying and attribute in _CHANGED_BY_COPY)):
            raise Refused(CKR.ATTRIBUTE_READ_ONLY)
    if copying and values.get(CKA.PRIVATE) == TRUE and given.get(CKA.PRIVATE) == FALSE:
        raise Refused(CKR.TEMPLATE_INCONSISTENT)  # a copy must not show what the original hides
    return given


_CHANGED_BY_COPY = frozenset((CKA.TOKEN, CKA.PRIVATE, CKA.MODIFIABLE, CKA.DESTROYABLE, CKA.COPYABLE))


def _rule(rules: Rules, attribute: int) -> Rule:
    rule = rules.get(attribute)
    if rule is None:
        raise Refused(CKR.ATTRIBUTE_TYPE_INVALID)
    return rule


def _check(rule: Rule, value: bytes) -> None:
    if (rule.size and len(value) != rule.size) or (rule.size == BOOL and value not in (TRUE, FALSE)):
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID)
    if ONLY_BY_SO in rule.notes and value == TRUE:
        raise Refused(CKR.ATTRIBUTE_READ_ONLY)
