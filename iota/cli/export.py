"""`iota export`: writes a run's model for `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def export(
    run_dir: Annotated[Path, typer.Option(help="The folder of the run, as `iota up` made it.")],
    to: Annotated[Path, typer.Option(help="Where to write the model: a new or empty folder.")],
) -> None:
    """Write the newest merged weights as a `transformers` model: weights, config, tokenizer, code.

    It loads with AutoModelForCausalLM.from_pretrained(TO, trust_remote_code=True).
    """
    from iota.swarm.exporting import export_run

    epoch = export_run(run_dir, to)
    typer.echo(f"the weights after {epoch} epochs are in {to}")
