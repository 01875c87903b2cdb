"""Errors as NSPR keeps them: a number per thread, set by whatever failed last, never cleared by success (prerror.h)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ..errors import NSPRError, error_meaning, error_name

__all__ = ["NSPRError", "PR_ErrorToName", "PR_ErrorToString", "PR_GetError", "PR_GetErrorText", "PR_SetError", "sets_error"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class _Last(threading.local):
    """Of this thread."""

    number = 0
    text = ""


_last = _Last()


def PR_GetError() -> int:
    """The number of the last error of this thread, 0 if there was none (prerror.h)."""
    return _last.number


def PR_SetError(errorCode: int, oserr: int = 0) -> None:
    """Set it (prerror.h).  Differs: `oserr` is taken and not kept; Python's own errors tell the system's."""
    _last.number, _last.text = errorCode, ""


def PR_GetErrorText() -> str:
    """The details of the last error in words, "" if there are none (prerror.h).  Differs: returned, not copied."""
    return _last.text


def PR_ErrorToName(code: int) -> str | None:
    """`SEC_ERROR_BUSY` for its number; None for a number that is no error's (prerror.h)."""
    try:
        return error_name(code)
    except KeyError:
        return None


def PR_ErrorToString(code: int, language: int = 0) -> str:
    """What an error means, one English sentence (prerror.h); "Unknown code" and the number for one that is none."""
    name = PR_ErrorToName(code)
    return error_meaning(name) if name else f"Unknown code {code}"


def sets_error(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """For a function of NSS: the NSPRError it raises is the thread's last error."""

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except NSPRError as error:
            _last.number, _last.text = error.errno, error.detail
            raise

    return call
