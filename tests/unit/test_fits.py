"""A stage is held against a memory: the policy that fits, what it costs, and what would help."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from iota.cli.main import main
from iota.model.proposal import make_spec
from iota.planning import Machine, all_needs, fit, fitted_spec, remedies, stage_needs, stage_shortfalls
from iota.planning.fits import PROCESS_BYTES, best_policy, slowdown
from iota.planning.needs import Needs
from iota.settings import Activations
from iota.spec import RunSpec
from iota.spec.draft import Draft, from_assignments
from tests.support.data_sets import prepare_made_up

GB = 10**9
FLOPS = 50e12
ROOMY = Machine(memory=1 << 50, disk=1 << 50, place=Path("/data"))


def proposed(draft: Draft) -> RunSpec:
    return make_spec(draft, "0" * 64, 2)


def spec_of(*changes: str) -> RunSpec:
    return proposed(from_assignments(changes))


def card(size: float, memory: int = 1 << 50) -> Machine:
    return replace(ROOMY, card=int(size), memory=memory)


LLAMA = spec_of("model.preset=llama-8b")


# ---- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_less_memory_takes_a_policy_that_keeps_less(compiled: bool) -> None:
    needs = stage_needs(LLAMA, 1, compiled=compiled)
    sizes = {policy: needs.memory_of(policy) for policy in needs.kept}
    for policy in (Activations.KEEP, Activations.SELECTIVE, Activations.OFFLOAD):
        if compiled and policy is Activations.SELECTIVE:
            continue  # compiled layers keep no more under KEEP
        assert fit(LLAMA, needs, card(sizes[policy]), FLOPS).policy is policy
    assert fit(LLAMA, needs, card(sizes[Activations.OFFLOAD] - 1), FLOPS).policy is None


def test_without_host_memory_a_card_recomputes_and_so_does_a_cpu() -> None:
    needs = stage_needs(LLAMA, 1)
    size, loading = needs.memory_of(Activations.RECOMPUTE), needs.hosted + PROCESS_BYTES
    assert fit(LLAMA, needs, card(size, memory=loading), FLOPS).policy is Activations.RECOMPUTE
    cpu = replace(ROOMY, memory=size + loading)
    assert fit(LLAMA, needs, cpu, FLOPS).policy is Activations.RECOMPUTE
    assert fit(LLAMA, needs, replace(cpu, memory=cpu.memory - 1), FLOPS).policy is None


def test_the_graphs_that_there_is_room_for_are_counted() -> None:
    needs = stage_needs(LLAMA, 1, compiled=True)
    kept = needs.kept[Activations.OFFLOAD]
    assert fit(LLAMA, needs, ROOMY, FLOPS).in_flight == needs.graphs == 9
    short = card(needs.memory_of(Activations.OFFLOAD) - 3 * kept.graph)
    assert (found := fit(LLAMA, needs, short, FLOPS)).in_flight == 6
    assert (found.policy, found.under) == (None, Activations.OFFLOAD)
    assert fit(LLAMA, needs, card(1 << 20), FLOPS).in_flight == 0


def test_recomputing_repeats_less_than_a_forward_and_offloading_hides_behind_a_slow_device() -> None:
    needs = stage_needs(LLAMA, 1, compiled=True)
    assert 0.2 < slowdown(LLAMA, needs, Activations.RECOMPUTE, FLOPS) < 1 / 3
    assert slowdown(LLAMA, needs, Activations.KEEP, FLOPS) == 0
    assert slowdown(LLAMA, needs, Activations.SELECTIVE, FLOPS) == 0
    assert slowdown(LLAMA, stage_needs(LLAMA, 1), Activations.SELECTIVE, FLOPS) > 0
    slow, fast = (slowdown(LLAMA, needs, Activations.OFFLOAD, flops) for flops in (FLOPS, 40 * FLOPS))
    assert slow == 0 < fast
    # Where both fit, the one that adds less is planned.
    room = card(needs.memory_of(Activations.RECOMPUTE))
    assert fit(LLAMA, needs, room, FLOPS).policy is Activations.OFFLOAD
    assert fit(LLAMA, needs, room, 40 * FLOPS).policy is Activations.RECOMPUTE


# ---- what would help -----------------------------------------------------------------------------


def test_each_change_that_helps_by_itself_is_the_smallest_of_its_kind() -> None:
    spec = spec_of("model.preset=llama-1b", "schedule.credit=64", "data.sequences=8")
    stage = 1
    needs = stage_needs(spec, stage, compiled=True)
    machine = card(needs.memory_recomputing - 1, memory=needs.hosted + PROCESS_BYTES)
    found = remedies(spec, stage, machine, compiled=True)
    assert "schedule.credit=63" in found
    assert "data.sequences=4 and schedule.microbatches=512" in found
    assert "4 instead of 5 layers" in found
    for text in found:
        if "layers" not in text:
            changed = spec_of(
                "model.preset=llama-1b", "schedule.credit=64", "data.sequences=8", *text.split(" and ")
            )
            assert best_policy([stage_needs(changed, stage, compiled=True)], machine) is not None, text


def test_changes_that_help_only_together_are_said_to() -> None:
    needs = stage_needs(LLAMA, 7, compiled=True)
    (found,) = remedies(LLAMA, 7, card(0.7 * needs.memory_recomputing), compiled=True)
    told = r"optimizer.moments=int8, optimizer.gradient_sums=bf16 and precision=bf16-sr together"
    assert re.fullmatch(told, found)
    assert remedies(LLAMA, 7, card(1 << 20), compiled=True) == []


def test_a_miner_is_told_of_another_policy_and_what_the_runs_owner_could_change() -> None:
    needs = stage_needs(LLAMA, 1, compiled=True)
    machine = card(needs.memory_of(Activations.KEEP) - 1)
    assert stage_shortfalls(LLAMA, needs, machine) == []
    (said,) = stage_shortfalls(LLAMA, needs, machine, Activations.KEEP)
    assert "give --activations offload, or auto" in said
    assert "the run's owner could give it schedule.credit=8" in said
    (said,) = stage_shortfalls(LLAMA, needs, card(needs.memory_of(Activations.OFFLOAD) - 1))
    assert "take a larger machine; the run's owner could give it" in said


# ---- proposals for a memory ----------------------------------------------------------------------


def test_a_proposal_fits_the_memory_that_it_is_made_for() -> None:
    draft = from_assignments(["model.preset=llama-8b", "precision=bf16-sr", "optimizer.kind=muon"])
    machine = card(24 * GB)
    made = fitted_spec(draft, proposed, machine, FLOPS)
    assert all(best_policy([needs], machine) for needs in all_needs(made, compiled=True))
    cuts = made.layout.cuts
    assert cuts[0] < cuts[1], "the first stage has the embedding, and fewer layers"
    assert made.schedule.credit == len(cuts) + 1
    assert fitted_spec(draft, proposed, card(1 << 45), FLOPS) == proposed(draft)


def test_a_spec_of_absurd_numbers_has_its_remedies_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2**53 - 1
    asked: list[RunSpec] = []

    def counting(spec: RunSpec, stage: int, *, compiled: bool) -> Needs:
        asked.append(spec)
        return stage_needs(spec, stage, compiled=compiled)

    monkeypatch.setattr(sys.modules["iota.planning.remedies"], "stage_needs", counting)
    schedule = LLAMA.schedule.model_copy(update={"credit": most, "microbatches": most})
    data = LLAMA.data.model_copy(update={"sequences": 2**52, "sequence_length": 2**52})
    huge = LLAMA.model_copy(update={"schedule": schedule, "data": data})
    model, layout = LLAMA.model, LLAMA.layout
    deep = LLAMA.model_copy(
        update={
            "model": model.model_copy(update={"layers": 40}),
            "layout": layout.model_copy(update={"cuts": (40,)}),
            "schedule": schedule,
        }
    )
    for spec in (huge, deep):
        for size in (1 << 10, 1 << 45):
            remedies(spec, 0, card(size), compiled=True)
    assert len(asked) < 1500


def test_a_first_stage_that_would_compute_again_has_smaller_microbatches() -> None:
    """As many tokens a step, and all graphs kept."""
    draft = from_assignments(["model.preset=llama-1b", "layout.cuts=5,5,5,1"])
    whole = proposed(draft)
    needs = stage_needs(whole, 0, compiled=True)
    machine = card(needs.memory_recomputing + 2 * GB, memory=needs.hosted + PROCESS_BYTES)
    assert fit(whole, needs, machine, FLOPS).policy is Activations.RECOMPUTE
    made = fitted_spec(draft, proposed, machine, FLOPS)
    assert made.data.tokens * made.schedule.microbatches == whole.data.tokens * whole.schedule.microbatches
    assert made.data.sequences == 1 < whole.data.sequences
    slow = [fit(made, n, machine, FLOPS).slowdown for n in all_needs(made, compiled=True)]
    assert slow[0] == 0


def test_more_stages_are_proposed_where_the_usual_ones_do_not_fit() -> None:
    draft = from_assignments(["model.preset=orion-100b"])
    made = fitted_spec(draft, proposed, card(80 * GB), FLOPS)
    assert made.layout.stages > proposed(draft).layout.stages
    assert all(best_policy([needs], card(80 * GB)) for needs in all_needs(made, compiled=True))


def test_what_is_given_stays_and_what_cannot_fit_is_proposed_as_usual() -> None:
    given = from_assignments(["model.preset=llama-8b", "layout.cuts=8,8,8,8", "data.sequences=2"])
    assert fitted_spec(given, proposed, card(24 * GB), FLOPS) == proposed(given)
    tiny = from_assignments(["model.preset=tiny"])
    assert fitted_spec(tiny, proposed, card(1 << 10), FLOPS) == proposed(tiny)


# ---- commands ------------------------------------------------------------------------------------


def planned(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *flags])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return " ".join(said.out.split())


def test_a_plan_says_what_memory_holds_and_which_device_was_assumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = planned(capsys, "--model", "llama-1b", "--memory", "16GB")
    assert "compiled layers, as on CUDA" in said
    assert "On GPUs of 16.0 GB" in said
    assert re.search(r"offload \+0%", said)
    said = planned(capsys, "--model", "tiny", "--memory", "1GB", "--device", "cpu")
    assert "layers as they are on a CPU" in said
    assert "On CPUs of 1.0 GB" in said
    said = planned(capsys, "--model", "llama-8b", "--memory", "24GB", "--stages", "8")
    assert "Stage 7 does not fit under any policy: it would with optimizer.moments=int8" in said
    said = planned(capsys, "--model", "tiny", "--memory", "1MB")
    assert "Stage 0 does not fit under any policy, nor would it with any change that this knows." in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--memory", "much"], "--memory: 'much' is no size"),
        (["--memory", "0"], "--memory 0 is 0 bytes, and no stage fits them: write 80GB or 500MB"),
        (["--memory", "5"], "--memory 5 is 5 bytes"),
        (["--host-memory", "1GB"], "give the GPU's with --memory"),
        (["--host-memory", "1GB", "--memory", "1GB", "--device", "cpu"], "on a CPU --memory is all there is"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_memory_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *flags])
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_spec_for_a_memory_that_holds_no_stage_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_made_up(tmp_path / "data", count=400, heldout_tokens=5000)
    flags = [
        "spec",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "s.json"),
        "--max-passes",
        "1e6",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*flags, "--memory", "1MB"])
    assert ended.value.code == 2
    assert "--memory: stage 0 needs" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main([*flags, "--memory", "16GB"])
    assert ended.value.code == 0
    assert (tmp_path / "s.json").exists()
