"""General purpose (PKCS #11 2.40 section 5.4), and the leftovers of parallel functions (5.13)."""

from __future__ import annotations

from ..abi import CKF, CKR, CRYPTOKI_VERSION, INFO, INITIALIZE_ARGS, Refused, padded
from . import Call

MANUFACTURER = "nss-pk11"
LIBRARY_VERSION = (0, 1)


def C_Initialize(call: Call, arguments: int) -> None:
    """Begin.  The module locks as the system does: a host that insists on mutexes of its own gets CKR_CANT_LOCK."""
    mutexes: list[int] = []
    flags = reserved = 0
    if arguments:
        *mutexes, flags, reserved = INITIALIZE_ARGS.unpack(call.memory.read(arguments, INITIALIZE_ARGS.size))
    with call.machine.lock:
        if call.host.initialised:
            raise Refused(CKR.CRYPTOKI_ALREADY_INITIALIZED)
        if reserved or (any(mutexes) and not all(mutexes)):
            raise Refused(CKR.ARGUMENTS_BAD)
        if any(mutexes) and not flags & CKF.OS_LOCKING_OK:
            raise Refused(CKR.CANT_LOCK)
        call.host.initialise()


def C_Finalize(call: Call, reserved: int) -> None:
    """End: sessions, logins, and whoever waits in C_WaitForSlotEvent."""
    if reserved:
        raise Refused(CKR.ARGUMENTS_BAD)
    call.host.finalise()


def C_GetInfo(call: Call, info: int) -> None:
    """CK_INFO."""
    description = padded("Simulated PKCS #11 hardware", 32)
    call.memory.write(info, INFO.pack(*CRYPTOKI_VERSION, padded(MANUFACTURER, 32), 0, description, *LIBRARY_VERSION))


def C_GetFunctionStatus(call: Call, session: int) -> None:
    """Nothing runs in parallel; so says 2.40 of all modules."""
    raise Refused(CKR.FUNCTION_NOT_PARALLEL)


def C_CancelFunction(call: Call, session: int) -> None:
    """As C_GetFunctionStatus."""
    raise Refused(CKR.FUNCTION_NOT_PARALLEL)
