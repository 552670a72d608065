"""`scripts/soak_audits.py`: its matrix, and that it counts what it audits."""

from __future__ import annotations

from pathlib import Path

from iota.settings import Activations
from iota.spec import OptimizerKind, Pipeline, Precision, WireDtype
from tests.support.soak_rows import VARIANTS, row
from tests.support.soak_work import Soak, make


def test_the_matrix_has_every_value_in_its_first_rows() -> None:
    rows = [row(0, number) for number in range(60)]
    specs = [each.spec for each in rows]
    assert {spec.precision for spec in specs} == set(Precision)
    assert {spec.optimizer.kind for spec in specs} == set(OptimizerKind)
    assert {spec.boundary.wire for spec in specs} == set(WireDtype)
    assert {spec.boundary.codec for spec in specs} == {"identity", "resbm", "resbm-anchor"}
    assert {spec.schedule.pipeline for spec in specs} == set(Pipeline)
    assert {each.activations for each in rows} == set(Activations) - {Activations.AUTO}
    assert {each.maker for each in rows} == set(VARIANTS)
    assert {auditor.variant for each in rows for auditor in each.auditors} == set(VARIANTS)
    assert {VARIANTS[each.maker].threads for each in rows} == {1, 2, 3, 4}


async def test_who_lies_is_counted_and_the_honest_are_not_failed(tmp_path: Path) -> None:
    lying = next(found for n in range(100) if (found := row(0, n, lies=True)).size == "nano")
    make(lying, tmp_path)
    soak = Soak(lying, 0)
    await soak.audit(tmp_path)
    assert soak.found.fails == []
    tallies = soak.found.tallies
    assert tallies["op lie declared"].failed > 0
    assert tallies["segment lie declared"].failed == tallies["segment lie declared"].audits > 0
    for how in ("op declared", "segment declared"):
        assert (tallies[how].failed, tallies[how].audits > 0) == (0, True)
        assert 0 <= max(tallies[how].largest.values()) <= 1
