"""Admission of hotkeys to a run: by an allow-list file, or by the subnet's metagraph (`metagraph`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from iota.identity.signatures import is_address
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType, Standing

_REFUSALS = {
    Standing.NOT_REGISTERED: "is not registered on this run's subnet: register it",
    Standing.NO_PERMIT: "is registered, and has no validator permit: the chain gives it by stake",
    Standing.NOT_LISTED: "is not on this run's allow-list: ask the run's operator",
}


class AllowList:
    """Hotkeys from a text file, one a line, with `#` comments. Each of them may have any role."""

    def __init__(self, hotkeys: frozenset[str]) -> None:
        self._hotkeys = hotkeys

    def __call__(self, hotkey: str, role: Role) -> bool:
        return hotkey in self._hotkeys

    def standing(self, hotkey: str) -> Standing:
        """Why a hotkey without any role has none."""
        return Standing.NOT_LISTED

    @classmethod
    def load(cls, path: Path) -> AllowList:
        """Read an allow-list. Raises ValueError for an unreadable file or a line that is no address."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the allow-list {path} cannot be read: {error}") from None
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        for number, line in enumerate(lines, 1):
            if line and not is_address(line):
                raise ValueError(f"{path} line {number}: {line[:80]!r} is no hotkey address; give one a line")
        return cls(frozenset(line for line in lines if line))


class Admission:
    """Asks `is_member(hotkey, role)`; where it says no, awaits `reread` and asks once more.

    So a hotkey that registered since the last read of the metagraph need not wait for the next one.
    """

    def __init__(
        self,
        is_member: Callable[[str, Role], bool],
        standing: Callable[[str], Standing],
        reread: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`standing(hotkey)` says why a hotkey that asked for a role does not have it."""
        self._is_member, self._standing, self._reread = is_member, standing, reread

    async def allows(self, hotkey: str, *roles: Role) -> bool:
        """Whether the hotkey may have one of the roles. Raises Problem when membership is unknown now."""
        allowed = any(self._is_member(hotkey, role) for role in roles)
        if allowed or self._reread is None:
            return allowed
        await self._reread()
        return any(self._is_member(hotkey, role) for role in roles)

    def refusal(self, hotkey: str) -> Problem:
        """The problem for a hotkey that `allows` has said no to."""
        standing = self._standing(hotkey)
        return Problem(
            ProblemType.NOT_A_MEMBER, f"{hotkey} {_REFUSALS[standing]}", extra={"standing": standing.value}
        )
