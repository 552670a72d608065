"""`iota-validator calibrate`: from honest replays to bounds."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from iota.codec.wire_dtype import encode_wire, payload_tensor
from iota.compute.names import Output
from iota.compute.state import StageState
from iota.console.command import WorkFailed
from iota.protocol.receipts import OpKind, Receipt, StepUpdate
from iota.spec import Precision, RunSpec
from tests.support.small_runs import small_run
from validator.audits.declared import least_bound
from validator.audits.measured import read_profiles
from validator.audits.tolerance import compare_norm, compare_output, compare_state, profile_for
from validator.calibration import calibrate as calibration
from validator.calibration.calibrate import Fitted, calibrate, lie_of
from validator.calibration.child import Order, starts
from validator.calibration.fitting import MARGIN, MIN_SAMPLES, pooled
from validator.calibration.honest import Honest
from validator.calibration.measuring import samples_in
from validator.calibration.plan import Plan, calibrated, depths_of
from validator.calibration.replay_files import read_replay, read_state
from validator.calibration.samples import Distances, PairSamples
from validator.calibration.tail import Tail, fit_tail, quantiles
from validator.calibration.variants import Variant, is_left_out, variants
from validator.cli import app
from validator.core.results import Quantity

# ---- the fit ----------------------------------------------------------------------------------


@given(st.sampled_from([0.0, 0.1, 0.2, 0.4]), st.integers(0, 2**32 - 1))
def test_the_tail_of_pareto_distances_is_found(shape: float, seed: int) -> None:
    uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    distances = -(1 - uniform).log() if shape == 0 else ((1 - uniform) ** -shape - 1) / shape
    tail, true = fit_tail(distances.tolist()), Tail(0.0, 1.0, shape, 1.0)
    assert tail.shape == pytest.approx(shape, abs=0.2)
    assert math.log(tail.beyond(1e-4)) == pytest.approx(math.log(true.beyond(1e-4)), abs=0.7)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=300))
def test_a_rarer_distance_is_not_nearer(distances: list[float]) -> None:
    tail = fit_tail(distances)
    assert tail.beyond(1e-6) >= tail.beyond(1e-3) >= 0
    assert list(quantiles(distances)) == sorted(quantiles(distances))
    assert quantiles(distances)[-1] == max(distances)


def test_equal_bits_give_the_least_bound() -> None:
    tail = fit_tail([0.0] * 50)
    assert (tail.beyond(1e-6), tail.shape) == (0.0, 0.0)
    spec = small_run()
    assert least_bound(spec, Quantity.TOKEN) > least_bound(spec, Quantity.ERROR) > 0


def test_nothing_has_no_tail() -> None:
    with pytest.raises(ValueError, match="no distance"):
        fit_tail([])


def test_pairs_are_pooled_over_threads_and_equal_classes_left_out() -> None:
    values = Distances(kind=OpKind.FORWARD, quantity=Quantity.ERROR, depth=1, values=(1.0,))
    pairs = [("cpu/a/t1/x", "cpu/b/t1/x"), ("cpu/a/t4/x", "cpu/b/t1/x"), ("cpu/a/t1/x", "cpu/a/t1/x"),
             ("cpu/a/t1/x", "cpu/a/t2/x")]  # fmt: skip
    found = pooled(PairSamples(classes=pair, distances=(values,)) for pair in pairs)
    assert [(each.classes, each.threads) for each in found] == [
        (("cpu/a/t*/x", "cpu/a/t*/x"), 2), (("cpu/a/t*/x", "cpu/b/t*/x"), 4)
    ]  # fmt: skip
    assert [len(next(iter(each.distances.values()))) for each in found] == [1, 2]


# ---- the plan ---------------------------------------------------------------------------------


def test_depths_end_with_the_segments_length() -> None:
    assert depths_of(1) == (1,)
    assert depths_of(5) == (1, 5)
    assert depths_of(12) == (1, 5, 10, 12)


def test_a_run_of_one_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two stages"):
        calibrated(small_run(layout={"cuts": [4]}))


def test_each_thread_count_runs_the_plain_kernels_and_bf16_leaves_out_what_torch_cannot() -> None:
    found = variants([1, 2], ["cuda"])
    assert found[0] == Variant("default-t1", environment=found[0].environment)
    assert {"default-t2", "cuda", "avx2-t1"} <= {variant.name for variant in found}
    assert any(is_left_out(variant, Precision.BF16_MASTER) for variant in found)
    assert not any(is_left_out(variant, Precision.FP32) for variant in found)


# ---- a real calibration -----------------------------------------------------------------------

FAST = Variant("fast")
PLAIN = Variant("plain", environment={"ATEN_CPU_CAPABILITY": "default"})
"""Without vector instructions: another class on every CPU."""
SPEC = calibrated(small_run(model={"vocab_size": 257}, optimizer={"kind": "muon"}))
PLAN = Plan((SPEC,), segments=1, depths=(1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Fitted:
    with pytest.MonkeyPatch.context() as patch:
        # What they replay is compared here again.
        patch.setattr("validator.calibration.measuring.shutil.rmtree", lambda *_, **__: None)
        patch.setattr("validator.calibration.fitting.MIN_SAMPLES", 1)
        (found,) = calibrate(PLAN, [FAST, PLAIN], folder, lambda line: None)
    return found


def replays(folder: Path) -> tuple[Honest, Honest, Path, Path]:
    work = folder / "fp32-muon-bf16" / "work"
    leading, other = work / "start", work / "0" / "plain"
    return read_replay(leading), read_replay(other), leading, other


def receipt(kind: OpKind, number: float | None) -> Receipt:
    update = StepUpdate(gradient_norm=number or 0, counted="0" * 64, learning_rate=1)
    return Receipt(
        seq=1, epoch=0, step=0, stage=0, version=0, started=1, ended=1, device="cpu", kind=kind,
        output="0" * 64, loss=number if kind is OpKind.LOSS else None,
        update=update if kind is OpKind.STEP else None,
    )  # fmt: skip


def failures(fitted: Fitted, folder: Path, *, times: float = 0.0) -> dict[OpKind, list[bool]]:
    """Which comparisons fail, of each op kind: of honest replays, or of lies of so many times the bounds."""
    profile = profile_for(run_of(fitted), *devices(folder), [fitted.profile])
    assert profile.name.startswith("measured/")
    theirs, mine, leading, other = replays(folder)
    lie = {kind: times * lie_of(profile.bounds(2), kind) for kind in OpKind if kind in KINDS}
    found: dict[OpKind, list[bool]] = {kind: [] for kind in lie}
    for name, payload in theirs.payloads.items():
        said = receipt(name[3], theirs.numbers.get(name))
        output = Output(mine.payloads[name], "", 1, mine.numbers.get(name))
        sent = noisy(payload, lie[name[3]])
        found[name[3]].append(compare_output(profile, said, output, sent, 2) is not None)
    for name, number in theirs.numbers.items():
        if name[3] is OpKind.STEP:
            told = receipt(OpKind.STEP, number * (1 + lie[OpKind.STEP]))
            found[OpKind.STEP].append(compare_norm(profile, told, mine.numbers[name], 2) is not None)
    for stage, start in enumerate(begun()):
        a, b = (read_state(path, 2, stage, SPEC) for path in (leading, other))
        moved = {n: w + lie[OpKind.COMMIT] * (w - start.weights[n]) for n, w in a.weights.items()}
        committed = StageState(moved, a.moments, a.before)
        found[OpKind.COMMIT].append(compare_state(profile, 1, start, committed, b, 2) is not None)
    return found


KINDS = (OpKind.FORWARD, OpKind.BACKWARD, OpKind.LOSS, OpKind.STEP, OpKind.COMMIT)


def begun() -> list[StageState]:
    return starts(
        Order(spec=SPEC, number=0, steps=2, kept=(2,), start=None, start_steps=0, sent=None, out="",
              device="cpu", threads=1)
    )  # fmt: skip


def run_of(fitted: Fitted) -> RunSpec:
    run = fitted.spec.model_dump()
    return RunSpec.model_validate({**run, "audit": {"commit_every": 2}})


def devices(folder: Path) -> tuple[str, str]:
    theirs, mine, *_ = replays(folder)
    return theirs.device, mine.device


def noisy(payload: bytes, share: float) -> bytes:
    """A bf16 payload with noise of a share of its norm."""
    x_N = payload_tensor(payload).view(torch.bfloat16).float()
    noise_N = torch.randn(x_N.shape, generator=torch.Generator().manual_seed(0))
    lie_N = x_N + share * noise_N * x_N.norm() / noise_N.norm()
    return encode_wire(lie_N, SPEC.boundary.wire).numpy().tobytes()


def test_honest_replays_pass_their_own_profile(fitted: Fitted, folder: Path) -> None:
    found = failures(fitted, folder)
    assert all(found.values())
    assert not any(any(failed) for failed in found.values())


def test_lies_of_three_times_what_passes_fail(fitted: Fitted, folder: Path) -> None:
    assert all(all(failed) for failed in failures(fitted, folder, times=3).values())


def test_a_profile_says_what_it_was_made_from(fitted: Fitted, folder: Path) -> None:
    profile = fitted.profile
    assert read_profiles(folder / calibration.PROFILES) == (profile,)
    assert profile.depth == 2
    for bound in profile.measured:
        assert bound.samples > 0
        assert bound.bound >= 0.99 * MARGIN * bound.quantiles[-1]


def test_what_is_measured_is_not_measured_again(
    fitted: Fitted, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validator.calibration.fitting.MIN_SAMPLES", 1)
    lines: list[str] = []
    (again,) = calibrate(PLAN, [FAST, PLAIN], folder, lines.append)
    assert lines == ["fp32-muon-bf16: segment 1 of 1 is there"]
    assert again.profile == fitted.profile
    assert len(samples_in(folder, SPEC)) == 1


def test_a_plot_shows_a_profile(fitted: Fitted, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from validator.calibration.plot import plot

    plot(fitted, tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_samples_give_no_profile(fitted: Fitted, folder: Path) -> None:
    assert max(bound.samples for bound in fitted.profile.measured) < MIN_SAMPLES
    with pytest.raises(WorkFailed, match=r"needs 100 distances .* --segments \d+, or more --threads"):
        calibrate(PLAN, [FAST, PLAIN], folder, lambda line: None)


def test_the_flags_of_a_spec_are_refused_beside_a_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    result = CliRunner().invoke(app, ["calibrate", "--spec", str(path), "--precision", "fp32"])
    assert isinstance(result.exception, ValueError)
    assert "leave out the flags" in str(result.exception)
