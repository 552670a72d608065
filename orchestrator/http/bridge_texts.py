"""Answers of the Bridge as JSON, put together of texts that each variable and change makes once."""

from __future__ import annotations

from orchestrator.bridge.reading import Changes, Page
from orchestrator.bridge.variable import Variable


def variable_text(revision: int, variable: Variable | None) -> bytes:
    """A GetReply."""
    return f'{{"revision":{revision},"variable":{"null" if variable is None else variable.json}}}'.encode()


def page_text(page: Page) -> bytes:
    """A ListReply."""
    variables = ",".join(variable.json for variable in page.variables)
    return f'{{"revision":{page.revision},"more":{_bool(page.more)},"variables":[{variables}]}}'.encode()


def watch_text(found: Changes) -> bytes:
    """A WatchReply."""
    flags = f'"snapshot":{_bool(found.snapshot)},"more":{_bool(found.more)}'
    changes = ",".join(change.json for change in found.changes)
    return f'{{"revision":{found.revision},{flags},"changes":[{changes}]}}'.encode()


def _bool(value: bool) -> str:
    return "true" if value else "false"
