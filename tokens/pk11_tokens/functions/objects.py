"""Objects and searches (PKCS #11 2.40 section 5.7)."""

from __future__ import annotations

from collections.abc import Mapping

from ..abi import CKA, CKO, CKR, CKU, ULONG, UNAVAILABLE_INFORMATION, Refused
from ..attributes import FALSE, TRUE, Purpose, complete, distinct
from ..host import Operation, Session
from ..machine import Token
from ..objects import KEYS, Object, completed_key
from . import Call

_SECRET_KEY = ULONG.pack(CKO.SECRET_KEY)


class Search(Operation):
    """What a search has found and not yet told."""

    def __init__(self, found: list[Object]) -> None:
        self.found = found


def check_place(session: Session, values: Mapping[int, bytes]) -> None:
    """Whether the session may make an object with these values.

    Raises Refused: CKR_SESSION_READ_ONLY, CKR_USER_NOT_LOGGED_IN.
    """
    if values[CKA.TOKEN] == TRUE and not session.read_write:
        raise Refused(CKR.SESSION_READ_ONLY)
    if values[CKA.PRIVATE] == TRUE and session.logged_in != CKU.USER and session.token.login_required:
        raise Refused(CKR.USER_NOT_LOGGED_IN)


def keep(session: Session, values: Mapping[int, bytes]) -> int:
    """A new object on the token, or with the session; its handle.

    Raises Refused as `check_place`, and CKR_DEVICE_MEMORY where the token has no register left for a secret key.
    """
    check_place(session, values)
    registers = session.token.personality.key_registers
    if registers and values[CKA.CLASS] == _SECRET_KEY and _secret_keys(session.token) >= registers:
        raise Refused(CKR.DEVICE_MEMORY)
    item = Object(values, None if values[CKA.TOKEN] == TRUE else session)
    return session.token.objects.handle(session, session.token.objects.add(item))


def _secret_keys(token: Token) -> int:
    return sum(item.kind == CKO.SECRET_KEY for item in token.objects)


def _writable(session: Session, handle: int) -> Object:
    item = session.token.objects.get(session, handle)
    if item.owner is None and not session.read_write:
        raise Refused(CKR.SESSION_READ_ONLY)
    return item


def C_CreateObject(call: Call, session: int, template: int, count: int, handle: int) -> None:
    """A key, certificate or data from elsewhere."""
    found = call.session(session)
    given = distinct(call.memory.template(template, count))
    values = complete(given.items(), Purpose.CREATE, {})
    check_place(found, values)
    kind = ULONG.unpack(values[CKA.CLASS])[0]
    if kind in KEYS:
        values = completed_key(with_habits(found, given, values))
    call.noted["object"] = values[CKA.LABEL].decode("utf-8", "replace")
    call.memory.set_ulong(handle, keep(found, values))


def with_habits(session: Session, given: Mapping[int, bytes], values: dict[int, bytes]) -> dict[int, bytes]:
    """What the token says of its private keys where the template says nothing."""
    asks = session.token.personality.always_authenticate and CKA.ALWAYS_AUTHENTICATE not in given
    if asks and values.get(CKA.ALWAYS_AUTHENTICATE) == FALSE:
        return values | {CKA.ALWAYS_AUTHENTICATE: TRUE}
    return values


def C_CopyObject(call: Call, session: int, original: int, template: int, count: int, handle: int) -> None:
    """The same object once more, changed as the template says."""
    found = call.session(session)
    item = found.token.objects.get(found, original)
    copy = item.copy(call.memory.template(template, count), found)
    call.noted["object"] = copy.label
    call.memory.set_ulong(handle, keep(found, copy.values))


def C_DestroyObject(call: Call, session: int, handle: int) -> None:
    """It is gone, for everybody."""
    found = call.session(session)
    item = _writable(found, handle)
    call.noted["object"] = item.label
    if not item.is_true(CKA.DESTROYABLE):
        raise Refused(CKR.ACTION_PROHIBITED)
    found.token.objects.remove(item)


def C_GetObjectSize(call: Call, session: int, handle: int, size: int) -> None:
    """The bytes of its values."""
    found = call.session(session)
    item = found.token.objects.get(found, handle)
    call.memory.set_ulong(size, sum(map(len, item.values.values())))


def C_GetAttributeValue(call: Call, session: int, handle: int, template: int, count: int) -> None:
    """All that can be told is told, whatever of it cannot (section 5.7, cases 1 to 5); the first reason is the result."""
    found = call.session(session)
    item = found.token.objects.get(found, handle)
    call.noted["object"] = item.label
    refusal: Refused | None = None
    rows = call.memory.attributes(template, count)
    for index, (attribute, pointer, room) in enumerate(rows):
        try:
            value = item.read(attribute)
            if pointer and room < len(value):
                raise Refused(CKR.BUFFER_TOO_SMALL)
        except Refused as refused:
            refusal = refusal or refused
            length = UNAVAILABLE_INFORMATION
        else:
            length = len(value)
            if pointer:
                call.memory.write(pointer, value)
        call.memory.set_ulong(template + (3 * index + 2) * ULONG.size, length)
    if refusal:
        raise refusal


def C_SetAttributeValue(call: Call, session: int, handle: int, template: int, count: int) -> None:
    """All of it or nothing."""
    found = call.session(session)
    item = _writable(found, handle)
    call.noted["object"] = item.label
    item.change(call.memory.template(template, count))


def C_FindObjectsInit(call: Call, session: int, template: int, count: int) -> None:
    """What matches now is what will be told."""
    found = call.session(session)
    if "find" in found.operations:
        raise Refused(CKR.OPERATION_ACTIVE)
    wanted = distinct(call.memory.template(template, count))
    found.operations["find"] = Search([item for item in found.token.objects.visible(found) if item.matches(wanted)])


def _search(session: Session) -> Search:
    search = session.operations.get("find")
    if not isinstance(search, Search):
        raise Refused(CKR.OPERATION_NOT_INITIALIZED)
    return search


def C_FindObjects(call: Call, session: int, handles: int, most: int, count: int) -> None:
    """The next handles, none at the end."""
    found = call.session(session)
    search = _search(found)
    told, search.found = search.found[:most], search.found[most:]
    numbers = [found.token.objects.handle(found, item) for item in told]
    if numbers:
        call.memory.write(handles, b"".join(map(ULONG.pack, numbers)))
    call.memory.set_ulong(count, len(numbers))


def C_FindObjectsFinal(call: Call, session: int) -> None:
    found = call.session(session)
    _search(found)
    del found.operations["find"]
