"""What a login asks, and the shape of whoever answers.

A provider is called with a `PinRequest` and answers with a PIN, or with None to cancel.  Two facts about it decide how often a
card that locks after three mistakes may be risked on its answers: `person` and `static`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class PinRequest:
    """One question: the PIN of one token.

    `token`: its label; `serial`, `slot` (description) and `module` (path) tell apart tokens of one name.  `retry`: the last
    answer was wrong; `count_low`: some wrong PIN was tried since the last right one; `final_try`: one more mistake locks the
    token.  `protected`: the token has its own keypad, the answer only says whether to go on (any string) or to cancel.
    `context_specific`: the PIN is for one use of the key labelled `key` (CKA_ALWAYS_AUTHENTICATE).
    """

    token: str
    serial: str = ""
    slot: str = ""
    module: str = ""
    retry: bool = False
    final_try: bool = False
    count_low: bool = False
    protected: bool = False
    context_specific: bool = False
    key: str = ""

    @property
    def prompt(self) -> str:
        """The question in words, for whoever shows it to a person."""
        token = f'PIN of token "{self.token}"'
        question = f"Enter the {token} on its keypad" if self.protected else token
        if self.context_specific:
            question += f', to use its key "{self.key}" once'
        notes = [
            text
            for flag, text in (
                (self.retry, "the last PIN was wrong"),
                (self.final_try, "LAST TRY before the token locks"),
                (self.count_low and not self.final_try, "a wrong PIN was tried before"),
            )
            if flag
        ]
        return question + (f" ({'; '.join(notes)})" if notes else "")


class PinProvider(Protocol):
    """Whoever answers.  Called from the thread that needs the token; may block."""

    @property
    def person(self) -> bool:
        """A human answers.  Only such a provider is asked when one more mistake locks the token."""

    @property
    def static(self) -> bool:
        """Always the same answer: asked once, never again after a mistake, and for one token only."""

    def __call__(self, request: PinRequest) -> str | None:
        """The PIN, or None to cancel."""
