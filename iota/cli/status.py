"""`iota status`: shows the state of a run, from its orchestrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from iota.console.command import WorkFailed
from iota.settings import NodeSettings
from iota.settings.flags import SOURCES, with_flags

app = typer.Typer()
ANSWER_S = 10.0
MAX_STATUS_BYTES = 64 << 20
"""Well above the status of 3,000 members."""


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator",))
def status(
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a run of `iota up`, instead.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Follow the run until it ends or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON, one a line.")] = False,
    **flags: Any,
) -> None:
    """Show a run's stages and replicas, loss, speed, audits and weights."""
    import json
    import time

    from rich.console import Console
    from rich.live import Live

    from iota.swarm.progress import Progress
    from iota.swarm.view import page

    url = _url(run_dir, flags)
    console = Console()
    progress = Progress(time.monotonic())

    def shown(text: str) -> object:
        progress.observe(time.monotonic(), json.loads(text))
        assert progress.latest is not None
        nodes = progress.latest.get("nodes", {}).values()
        # A speed needs two statuses; the first shows what the nodes report of themselves.
        speed = progress.recent_tokens_per_second or max(
            (node["tokens_per_second"] for node in nodes), default=0.0
        )
        return page(progress.latest, speed, console.width)

    if as_json:
        for text in _stream(url) if live else [_once(url)]:
            typer.echo(text)
    elif live:
        with Live(console=console, auto_refresh=False) as view:
            for text in _stream(url):
                view.update(shown(text), refresh=True)  # type: ignore[arg-type]
                if progress.latest is not None and progress.latest["finished"]:
                    return
    else:
        console.print(shown(_once(url)))


def _url(run_dir: Path | None, flags: dict[str, Any]) -> str:
    """The orchestrator's URL, from a run's folder or the settings."""
    from iota.swarm.run_dir import read_info

    if run_dir is not None:
        if NodeSettings.given(flags):
            raise ValueError("give --orchestrator or --run-dir, not both")
        url = read_info(run_dir).get("url")
        if not isinstance(url, str):
            raise ValueError(f"there is no run in {run_dir}: give the folder of an `iota up`")
        return url
    return NodeSettings.load(**flags).orchestrator.rstrip("/")


def _once(url: str) -> str:
    import asyncio

    from iota.http import AnswerRefused, HttpClient, NoAnswer

    async def ask() -> str:
        async with HttpClient() as http:
            answer = await http.fetch(
                "GET", f"{url}/v1/status", max_bytes=MAX_STATUS_BYTES, timeout_s=ANSWER_S
            )
        if answer.status != 200:
            raise _no_orchestrator(url, f"HTTP {answer.status}")
        return answer.body.decode()

    try:
        return asyncio.run(ask())
    except (NoAnswer, AnswerRefused) as error:
        raise _no_orchestrator(url, error) from None


def _stream(url: str) -> Iterator[str]:
    """Each status that the orchestrator sends, until it closes the stream."""
    import asyncio

    from iota.http import AnswerRefused, HttpClient, NoAnswer, lines

    async def statuses() -> AsyncGenerator[str]:
        async with HttpClient() as http, http.open("GET", f"{url}/v1/stream") as answer:
            if answer.status != 200:
                raise _no_orchestrator(url, f"HTTP {answer.status}")
            async for line in lines(answer, MAX_STATUS_BYTES):
                if line.startswith(b"data: "):
                    yield line[6:].decode().rstrip("\n")

    found = statuses()

    async def next_one() -> str | None:
        return await anext(found, None)

    with asyncio.Runner() as runner:
        try:
            while (text := runner.run(next_one())) is not None:
                yield text
        except (NoAnswer, AnswerRefused) as error:
            raise _no_orchestrator(url, error) from None
        finally:
            runner.run(found.aclose())


def _no_orchestrator(url: str, reason: object) -> WorkFailed:
    return WorkFailed(
        f"no orchestrator answers at {url} ({reason}): is the run going? Give --orchestrator URL, or"
        " --run-dir DIR for a run of `iota up`"
    )
