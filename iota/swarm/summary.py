"""The summary of a run, which `iota up` prints and writes at its end (docs/summary.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from iota.codec.shapes import payload_size
from iota.console.counts import counted
from iota.spec import RunSpec
from iota.swarm.progress import Progress

_BF16_BYTES = 2
_AUDITS = ("passed", "failed", "undelivered", "inconclusive")


@dataclass
class Summary:
    """The numbers of a finished run; docs/summary.md defines each by its name here."""

    run: str
    tokens: int
    steps: int
    epochs: int
    loss_first: float | None
    loss_last: float | None
    heldout_loss: float | None
    heldout_standard_error: float | None
    heldout_tokens: int | None
    tokens_per_second: float
    bytes_per_boundary_per_token: float
    compression_ratio: float
    utilization: float
    audits: dict[str, int]
    weights: dict[str, float]
    dropped: int
    rerouted: int
    restarts: dict[str, int]
    time_to_first_loss_s: float | None
    validator_compute_share: float | None
    memory_peak_bytes: dict[str, int]
    disk_bytes: int
    export: str | None = None
    single_process_tokens_per_second: float | None = None
    efficiency: float | None = None
    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take_heldout(self, path: Path) -> None:
        """Take the held-out loss that the export measured: of the last base, which no epoch begins with."""
        measured = json.loads(path.read_bytes())
        self.heldout_loss = measured["loss"]
        self.heldout_standard_error = measured["standard_error"]
        self.heldout_tokens = measured["tokens"]

    def compare(self, baseline: float) -> None:
        """Add `baseline`, the tokens per second of one plain process, and the efficiency against it."""
        self.single_process_tokens_per_second = baseline
        self.efficiency = self.tokens_per_second / baseline

    @classmethod
    def read(cls, path: Path) -> Summary:
        """The summary in a file that holds `as_json`. Raises ValueError if the file is damaged."""
        try:
            return cls(**json.loads(path.read_bytes()))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: remove it to end the run once more") from error

    def as_json(self) -> dict[str, Any]:
        """All fields by name; those of the comparison only where one was made."""
        values = asdict(self)
        if self.efficiency is None:
            del values["single_process_tokens_per_second"], values["efficiency"]
        return values


def boundary_bytes_per_token(spec: RunSpec) -> float:
    """Payload bytes of one token at one boundary in one direction; 0 where there is no boundary."""
    return payload_size(spec) / spec.data.tokens if spec.layout.stages > 1 else 0.0


def compression_ratio(spec: RunSpec) -> float:
    """Bytes of the residual stream in bf16 over payload bytes; 1 where there is no boundary."""
    sent = boundary_bytes_per_token(spec)
    return _BF16_BYTES * spec.model.hidden_size / sent if sent else 1.0


def boundary_traffic(spec: RunSpec) -> str:
    """A boundary's traffic in words."""
    return f"{boundary_bytes_per_token(spec):g} bytes a token, {compression_ratio(spec):g}x less than bf16"


def summarise(
    spec: RunSpec,
    progress: Progress,
    weights: Mapping[str, float],
    *,
    memory: Mapping[str, int],
    disk_bytes: int,
    restarts: Mapping[str, int],
    ends: Iterable[str] = (),
    names: Mapping[str, str] | None = None,
) -> Summary:
    """The summary of a run from its last status in `progress`, which must have one.

    `ends` says why processes were started again; `names` gives the process's name by hotkey.
    """
    status = progress.latest
    assert status is not None
    losses: list[float] = status["losses"]
    heldout: dict[str, float] = status["heldout"]
    last = max(heldout, key=int, default="")
    shares: dict[str, float] = status["validator_compute_share"]
    return Summary(
        run=spec.id,
        tokens=status["tokens"],
        steps=len(losses),
        epochs=spec.schedule.epochs if status["phase"] == "finished" else int(status["epoch"]),
        loss_first=losses[0] if losses else None,
        loss_last=losses[-1] if losses else None,
        heldout_loss=heldout[last] if heldout else None,
        heldout_standard_error=status["heldout_error"][last] if heldout else None,
        heldout_tokens=status["heldout_tokens"][last] if heldout else None,
        tokens_per_second=progress.tokens_per_second,
        bytes_per_boundary_per_token=boundary_bytes_per_token(spec),
        compression_ratio=compression_ratio(spec),
        utilization=progress.utilization,
        audits={name: status["audits"][name] for name in _AUDITS},
        weights=dict(weights),
        dropped=status["dropped"],
        rerouted=status["rerouted"],
        restarts=dict(restarts),
        time_to_first_loss_s=progress.first_loss_s,
        validator_compute_share=max(shares.values()) if shares else None,
        memory_peak_bytes=dict(memory),
        disk_bytes=disk_bytes,
        members={
            (names or {}).get(m["hotkey"], m["hotkey"]): {
                "hotkey": m["hotkey"], "role": m["role"], "stage": m["stage"], "tokens": m["tokens"],
            }
            for m in status["members"]
        },
        ends=list(ends),
    )  # fmt: skip


def summary_table(summary: Summary) -> Table:
    """The summary as a table for a terminal."""
    table = Table(title="summary", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    epochs = counted(summary.epochs, "epoch")
    trained = summary.tokens_per_second > 0  # an `iota up` that only ended the run measured nothing
    rows: list[tuple[str, str]] = [
        ("tokens", f"{summary.tokens:,} in {counted(summary.steps, 'step')}, {epochs}"),
        ("loss", f"{_number(summary.loss_first)} -> {_number(summary.loss_last)}"),
        ("held-out loss", _heldout(summary)),
        ("speed", f"{summary.tokens_per_second:,.0f} tokens/s" if trained else "-"),
        (
            "boundary",
            f"{summary.bytes_per_boundary_per_token:g} bytes a token, {summary.compression_ratio:g}x less",
        ),
        ("utilization", f"{summary.utilization:.1%}" if trained else "-"),
        ("audits", ", ".join(f"{count} {name}" for name, count in summary.audits.items())),
        *((f"weight {key[:8]}", _weight(summary, key, weight)) for key, weight in summary.weights.items()),
        ("first loss after", _number(summary.time_to_first_loss_s, " s", 1)),
        ("dropped, re-routed", f"{summary.dropped}, {summary.rerouted}"),
        ("memory peaks", ", ".join(f"{k} {v / 1e6:.0f} MB" for k, v in summary.memory_peak_bytes.items())),
        ("disk", f"{summary.disk_bytes / 1e6:.0f} MB"),
    ]
    if summary.validator_compute_share is not None:
        rows.append(("validator's compute", f"{summary.validator_compute_share:.1%} of the machine"))
    if summary.efficiency is not None and summary.single_process_tokens_per_second is not None:
        baseline = summary.single_process_tokens_per_second
        rows.append(("one plain process", f"{baseline:,.0f} tokens/s"))
        rows.append(("efficiency", f"{summary.efficiency:.3f}"))
    if summary.restarts:
        rows.append(("restarts", ", ".join(f"{k} {v}" for k, v in summary.restarts.items())))
    rows += [("restart", end) for end in summary.ends]
    if summary.export is not None:
        rows.append(("model", summary.export))
    rows += [("note", note) for note in summary.notes]
    for name, value in rows:
        table.add_row(name, value)
    return table


def disk_bytes(folder: Path) -> int:
    """Bytes of all files in `folder` and its subfolders; symbolic links count nothing."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _weight(summary: Summary, hotkey: str, weight: float) -> str:
    """A weight with the miner that has it."""
    whose = [(name, m) for name, m in summary.members.items() if m["hotkey"] == hotkey]
    who = "".join(f"  {name}, stage {m['stage']}, {counted(m['tokens'], 'token')}" for name, m in whose)
    return f"{weight:.3f}{who}"


def _heldout(summary: Summary) -> str:
    error, tokens = summary.heldout_standard_error, summary.heldout_tokens
    text = _number(summary.heldout_loss) + ("" if error is None else f" ± {error:.3f}")
    return text if tokens is None else f"{text} on {counted(tokens, 'token')}"


def _number(value: float | None, unit: str = "", digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"
