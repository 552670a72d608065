"""The names and sizes of what a miner stores beside frames. Pure."""

from __future__ import annotations

from iota.model.layout import count, run_shapes
from iota.spec import RunSpec

_SLACK = 1 << 20


def part_count(spec: RunSpec, stage: int) -> int:
    """Partitions of the stage's vector."""
    return -(-count(run_shapes(spec, stage)) // spec.outer.part_elements)


def delta_key(run: str, epoch: int, stage: int, hotkey: str, part: int) -> str:
    return f"{run}/delta/{epoch}/{stage}/{hotkey}/part-{part:03d}"


def merged_key(run: str, epoch: int, stage: int, hotkey: str, part: int) -> str:
    return f"{run}/merged/{epoch}/{stage}/part-{part:03d}.{hotkey}"


def base_key(run: str, epoch: int, stage: int, part: int) -> str:
    return f"{run}/base/{epoch}/{stage}/part-{part:03d}.safetensors"


def snapshot_key(run: str, epoch: int, hotkey: str, version: int) -> str:
    return f"{run}/audit/{epoch}/{hotkey}/{version}"


def part_bytes(spec: RunSpec) -> int:
    """Most bytes of a partition of a pseudo-gradient."""
    return 4 * spec.outer.part_elements + _SLACK


def base_part_bytes(spec: RunSpec) -> int:
    """Most bytes of a partition of a base: weights and momentum."""
    return 8 * spec.outer.part_elements + _SLACK


def snapshot_bytes(spec: RunSpec) -> int:
    """An upper bound on (weights, two moments) of one stage in fp32, with its safetensors header."""
    m, d = spec.model, spec.model.hidden_size
    layer = 2 * d * d + 2 * d * m.kv_heads * m.head_dim + 3 * d * m.ffn_size + 2 * d
    codec = 8 * d * max(spec.boundary_width, 32) * max(1, round(spec.boundary.hidden_ratio))
    anchor = spec.boundary.anchor_rank * (m.vocab_size + d)
    ends = m.vocab_size * d + d
    return 12 * (max(spec.layout.cuts) * layer + 2 * (codec + anchor + ends)) + 16 * _SLACK
