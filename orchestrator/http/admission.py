"""Admission of hotkeys to a run: by a file of hotkeys, or by the subnet's metagraph (`metagraph`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from iota.identity.signatures import is_address
from iota.protocol.messages import Role


class AllowList:
    """Hotkeys in a text file, one a line; `#` begins a comment. Any of them may have any role."""

    def __init__(self, hotkeys: frozenset[str]) -> None:
        self._hotkeys = hotkeys

    def __call__(self, hotkey: str, role: Role) -> bool:
        return hotkey in self._hotkeys

    @classmethod
    def load(cls, path: Path) -> AllowList:
        """Raises ValueError for a file that cannot be read or a line that is no hotkey."""
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
    """`is_member(hotkey, role)`, asked once more after `look_again` where the answer was no."""

    def __init__(
        self,
        is_member: Callable[[str, Role], bool],
        look_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._is_member, self._look_again = is_member, look_again

    async def allows(self, hotkey: str, *roles: Role) -> bool:
        """Whether the hotkey may have one of the roles. Raises Problem when that cannot be said now."""
        if any(self._is_member(hotkey, role) for role in roles):
            return True
        if self._look_again is None:
            return False
        await self._look_again()
        return any(self._is_member(hotkey, role) for role in roles)
