"""Interactive prompts: price confirmation, passwords.

Prompts and messages go to stderr, so that stdout holds a command's result alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from iota.settings import WalletSettings

_PASSWORD_ELSEWHERE = "set BT_WALLET_PASSWORD_FILE to a file with it, or run the command in a terminal"


class TerminalPrompts:
    """Prompts on the process's terminal; `yes` confirms every question without asking."""

    def __init__(self, settings: WalletSettings, *, yes: bool = False) -> None:
        self._settings = settings
        self._yes = yes

    def show(self, text: str) -> None:
        typer.echo(text, err=True)

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question.

        Raises:
            ValueError: stdin is no terminal.
        """
        if self._yes:
            return True
        if not sys.stdin.isatty():
            raise ValueError("there is no terminal to ask in: give --yes, and --max-burn TAO as a limit")
        return typer.confirm(question, err=True)

    def password(self, path: Path) -> str:
        """The password of the coldkey at `path`: from the settings, else typed without echo.

        Raises:
            ValueError: none is set and stdin is no terminal, or its file cannot be read.
        """
        return self._from_settings() or self._typed(f"Password of {path}", path, again=False)

    def new_password(self, path: Path) -> str:
        """A password for a new coldkey at `path`, as by `password`, but typed twice.

        Raises:
            ValueError: as for `password`.
        """
        return self._from_settings() or self._typed(f"New password for {path}", path, again=True)

    def _from_settings(self) -> str | None:
        if self._settings.wallet_password is not None:
            return self._settings.wallet_password
        file = self._settings.wallet_password_file
        if file is None:
            return None
        try:
            text = file.read_text().strip()
        except OSError as error:
            raise ValueError(
                f"the password file {file} cannot be read ({error.strerror}): {_PASSWORD_ELSEWHERE}"
            ) from None
        if not text:
            raise ValueError(f"the password file {file} is empty")
        return text

    def _typed(self, prompt: str, path: Path, *, again: bool) -> str:
        if not sys.stdin.isatty():
            raise ValueError(f"the password of {path} is needed: {_PASSWORD_ELSEWHERE}")
        return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=again, err=True))
