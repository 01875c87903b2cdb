"""A simulated token whose mechanisms a test gives and takes: what the fixture `gated_token` gives.  Uses `simulator` alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulator import RunningSimulator, TokenControl


class GatedToken:
    """A token that offers `required`, all but `missing`, and no other mechanism.

    `required`: CKM_ names; `missing`: the one of them that is not there, "" for none.  `module`: the path of the PKCS #11
    library; `token`: the control of the token; `simulator`: what runs it.
    """

    def __init__(self, simulator: RunningSimulator, required: tuple[str, ...], missing: str = "") -> None:
        self.simulator, self.required = simulator, required
        self.module = simulator.module
        (name,) = simulator.tokens()
        self.token: TokenControl = simulator[name]
        self.missing = ""
        self._offer(missing)

    @property
    def complete(self) -> bool:
        """Whether it offers all that is required."""
        return not self.missing

    def take(self, mechanism: str) -> None:
        """Put it in without this one of the mechanisms; it has to be out of its reader.  Raises ValueError, RuntimeError."""
        if mechanism not in self.required:
            raise ValueError(f"{mechanism} is not required: {', '.join(self.required)}")
        self._offer(mechanism)
        self.token.insert()

    def give_back(self) -> None:
        """Put it in with all of them; it has to be out of its reader.  Raises RuntimeError."""
        self._offer("")
        self.token.insert()

    def remove(self) -> None:
        """Pull it out.  Let the program under test see that: a card that is back before anybody has looked was not away."""
        self.token.remove()

    def _offer(self, missing: str) -> None:
        self.token.offer(*(name for name in self.required if name != missing))
        self.missing = missing

    def __repr__(self) -> str:
        return f"<token without {self.missing}>" if self.missing else "<token with all that is required>"
