"""What `iota doctor` makes of facts: each fault is named with its remedy, and a healthy node has none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iota.chain.chain import Block, ChainInfo, Neuron, RegistrationTerms, Subnet
from iota.doctor import Facts, Finding, Severity, findings
from iota.doctor.facts import (
    ChainFacts,
    HotkeyState,
    Machine,
    OrchestratorFacts,
    Software,
    Unknown,
    WalletFiles,
)
from iota.identity.keys import Hotkey
from iota.model.proposal import make_spec
from iota.planning import all_needs
from iota.protocol.messages import PROTOCOL_VERSION, Role
from tests.support.sample_specs import tiny_spec

HOTKEY = Hotkey.from_seed(b"\x01" * 32).ss58
COLDKEY = Hotkey.from_seed(b"\x02" * 32).ss58
INFO = ChainInfo("test", "bittensor", "spec 300", "0x00", 12.0, (9,), False, "by vote", 64)
HEAD = Block(1000, "0x01", 0.0)
ME = Neuron(3, HOTKEY, COLDKEY, 900.0, True, 0.0, 0.1, 900, 1)
OTHER = Neuron(0, COLDKEY, COLDKEY, 500.0, True, 0.0, 0.1, 990, 1)
SUBNET = Subnet(9, HEAD, 360, 0, (OTHER, ME), 256, 100, True, 0, 5000)
TERMS = RegistrationTerms(open=True, cost_tao=0.5, shielded=True, needs_coldkey=True)
CHAIN = ChainFacts("test", INFO, 0.05, HEAD, 6.0, SUBNET, TERMS, COLDKEY, 2.0)
WALLET = WalletFiles(
    Path("/k/w/hotkeys/h"), HotkeyState.USABLE, "", HOTKEY, 0o600, Path("/k/w/coldkey"), False, COLDKEY
)
SPEC = tiny_spec()
LARGE = tuple(all_needs(make_spec({"model": {"preset": "llama-8b"}}, "0" * 64, 2)))
RUN = OrchestratorFacts("http://run", "ab" * 32, 4, (PROTOCOL_VERSION,), SPEC, 0.02, 0.3, False)
MACHINE = Machine(Path("/data"), True, 100 << 30, ("H100, 81920 MiB",), 64 << 30)
HEALTHY = Facts(
    Role.VALIDATOR,
    "--wallet.name w --wallet.hotkey h --wallet.path /k",
    "--network test --netuid 9",
    9,
    "http://run",
    tuple(all_needs(SPEC)),
    Software((3, 11, 7), "11.3.0"),
    WALLET,
    CHAIN,
    RUN,
    MACHINE,
)


def changed(**parts: Any) -> Facts:
    """The healthy node with fields of its parts replaced: `chain={"head": ...}`."""
    new = {
        name: replace(getattr(HEALTHY, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return replace(HEALTHY, **new)


def amiss(facts: Facts) -> list[Finding]:
    return [finding for finding in findings(facts) if finding.verdict is not Severity.OK]


def test_an_orchestrator_that_is_away_is_amiss_unless_the_spec_is_given() -> None:
    away = replace(HEALTHY, orchestrator=Unknown("no connection"))
    assert "orchestrator" not in {found.check for found in amiss(away)}
    (found,) = [f for f in findings(away) if f.check == "orchestrator"]
    assert "with --spec none is needed" in found.found
    assert "orchestrator" in {found.check for found in amiss(replace(away, needs=()))}


@pytest.mark.parametrize("role", list(Role))
def test_a_healthy_node_has_nothing_amiss(role: Role) -> None:
    assert amiss(replace(HEALTHY, role=role)) == []


def without(hotkey: str) -> Subnet:
    return replace(SUBNET, neurons=tuple(n for n in SUBNET.neurons if n.hotkey != hotkey))


def mine(**changes: Any) -> Subnet:
    return replace(SUBNET, neurons=(OTHER, replace(ME, **changes)))


GONE = Unknown("no answer")
UNANSWERED = {
    "info": GONE,
    "head": GONE,
    "head_age_s": None,
    "subnet": GONE,
    "terms": GONE,
    "coldkey": None,
    "balance_tao": None,
}
POOR = {"subnet": without(HOTKEY), "balance_tao": 0.5}
CASES: list[tuple[str, Facts, str, str, str]] = [
    ("old python", changed(software={"python": (3, 13, 0)}), "python", "warning", "use Python 3.11"),
    ("sdk missing", changed(software={"sdk": None}), "sdk", "problem", "pip install"),
    ("sdk too new", changed(software={"sdk": "12.0.1"}), "sdk", "problem", r"bittensor==11\.3"),
    (
        "no hotkey",
        changed(wallet={"state": HotkeyState.MISSING, "hotkey": None, "mode": 0}),
        "hotkey",
        "problem",
        r"iota wallet new --wallet\.name w --wallet\.hotkey h --wallet\.path /k",
    ),
    (
        "encrypted hotkey",
        changed(wallet={"state": HotkeyState.ENCRYPTED, "hotkey": None}),
        "hotkey",
        "problem",
        "without one",
    ),
    (
        "damaged hotkey",
        changed(wallet={"state": HotkeyState.UNREADABLE, "hotkey": None, "complaint": "x holds no key"}),
        "hotkey",
        "problem",
        "backup",
    ),
    ("world-readable", changed(wallet={"mode": 0o644}), "hotkey file", "problem", "chmod 600 /k/w/hotkeys/h"),
    ("group-readable", changed(wallet={"mode": 0o640}), "hotkey file", "problem", "chmod 600"),
    ("coldkey here", changed(wallet={"coldkey_is_here": True}), "coldkey", "warning", "off this machine"),
    ("no chain", changed(chain=UNANSWERED), "chain", "problem", "--chain-endpoint"),
    (
        "runtime drifted",
        changed(chain={"info": Unknown("runtime 999 lacks Tempo", drifted=True)}),
        "chain",
        "problem",
        "update",
    ),
    ("subnet drifted", changed(chain={"subnet": Unknown("x", drifted=True)}), "subnet", "problem", "update"),
    ("no head", changed(chain={"head": GONE, "head_age_s": None}), "chain head", "problem", "another node"),
    ("slow chain", changed(chain={"latency_s": 4.0}), "chain latency", "warning", "nearer node"),
    ("node lags", changed(chain={"head_age_s": 90.0}), "chain head", "problem", "--chain-endpoint"),
    ("no such subnet", changed(chain={"subnet": Unknown("there is none")}), "subnet", "problem", "--netuid"),
    (
        "not registered",
        changed(chain={"subnet": without(HOTKEY)}),
        "registration",
        "problem",
        r"iota-validator register .* --network test --netuid 9`, where the coldkey is; .* 0\.5000 TAO",
    ),
    (
        "registration closed",
        changed(chain={"subnet": without(HOTKEY), "terms": replace(TERMS, open=False)}),
        "registration",
        "problem",
        "ask the subnet's owner",
    ),
    ("no fees", changed(chain={"balance_tao": 0.0}), "balance", "problem", f"send TAO to {COLDKEY}"),
    ("too little", changed(chain=POOR), "balance", "problem", f"send TAO to {COLDKEY}"),
    ("balance unknown", changed(chain=POOR | {"balance_tao": None}), "balance", "warning", "coldkeypub.txt"),
    (
        "no permit",
        changed(chain={"subnet": mine(validator_permit=False, stake=3.0)}),
        "permit",
        "problem",
        f"btcli stake add --network test --netuid 9 --hotkey {HOTKEY} --amount-tao AMOUNT",
    ),
    (
        "no permit on a ledger",
        changed(chain={"subnet": mine(validator_permit=False), "terms": replace(TERMS, needs_coldkey=False)}),
        "permit",
        "problem",
        "register another",
    ),
    (
        "inactive",
        changed(chain={"subnet": mine(last_update=-4001)}),
        "weights",
        "warning",
        "its log says why",
    ),
    (
        "no orchestrator",
        changed(orchestrator=GONE, needs=()),
        "orchestrator",
        "problem",
        "--orchestrator URL",
    ),
    (
        "other protocol",
        changed(orchestrator={"versions": (PROTOCOL_VERSION + 1,)}),
        "orchestrator",
        "problem",
        "update the older",
    ),
    ("read-only disk", changed(machine={"writable": False}), "data directory", "problem", "--data-dir"),
    ("full disk", changed(machine={"free_bytes": 1000}), "disk", "problem", "--data-dir"),
    ("small disk", changed(machine={"free_bytes": 5 << 30}), "disk", "warning", "--data-dir"),
    (
        "torch for CPUs",
        changed(role=Role.MINER, software={"torch_has_cuda": False}),
        "gpu",
        "warning",
        r"IOTA_TORCH=cuda \./scripts/up --help",
    ),
    ("no card", changed(role=Role.MINER, machine={"gpus": ()}), "gpu", "warning", "install the driver"),
    (
        "full disk of a miner",
        changed(role=Role.MINER, needs=LARGE),
        "disk",
        "problem",
        "[0-9.]+ GB for every",
    ),
    (
        "no stage fits the card",
        changed(role=Role.MINER, needs=LARGE, machine={"gpus": ("RTX 3090, 24576 MiB",)}),
        "memory",
        "problem",
        "smaller model",
    ),
    (
        "some stages fit the card",
        changed(role=Role.MINER, needs=LARGE, machine={"gpus": ("A100, 40960 MiB", "A100, 42000 MiB")}),
        "memory",
        "warning",
        "smaller model",
    ),
    (
        "no stage fits main memory",
        changed(role=Role.MINER, needs=LARGE, machine={"gpus": (), "memory_bytes": 8 << 30}),
        "memory",
        "problem",
        "smaller model",
    ),
    ("stuck driver", changed(role=Role.MINER, machine={"gpus": GONE}), "gpu", "problem", "nvidia-smi"),
]


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "remedy"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_fault_is_named_with_its_remedy(facts: Facts, check: str, verdict: str, remedy: str) -> None:
    found = [finding for finding in amiss(facts) if finding.check == check]
    assert [finding.verdict for finding in found] == [verdict]
    assert found[0].remedy is not None
    assert re.search(remedy, found[0].remedy), found[0].remedy


def test_the_least_stake_with_a_permit_is_told() -> None:
    found = [f for f in amiss(changed(chain={"subnet": mine(validator_permit=False)})) if f.check == "permit"]
    assert "least stake with one is 500.0" in found[0].found


def test_a_chain_that_does_not_answer_is_one_finding_and_not_five() -> None:
    facts = changed(chain=UNANSWERED, orchestrator={"same_machine": False})
    assert [finding.check for finding in amiss(facts)] == ["chain"]


@pytest.mark.parametrize("role", list(Role))
def test_a_free_chain_wants_no_balance(role: Role) -> None:
    free = replace(TERMS, cost_tao=0.0, needs_coldkey=False)
    facts = replace(changed(chain={"subnet": without(HOTKEY), "terms": free, "balance_tao": 0.0}), role=role)
    assert [finding.check for finding in amiss(facts)] == ["registration"]


NTP = "timedatectl set-ntp true"


@pytest.mark.parametrize(
    ("age_s", "ahead_s", "same_machine", "said"),
    [
        (66.0, 60.0, False, "60 s ahead of"),
        (-54.0, -60.0, False, "60 s behind"),
        (-54.0, None, False, "54 s behind the chain's newest block"),
        (66.0, None, False, "either this clock is ahead, or its node lags"),
        (-54.0, 0.1, True, "54 s behind the chain's newest block"),
        (66.0, 0.1, True, "either this clock is ahead"),
        (None, 60.0, False, "60 s ahead of the orchestrator's"),
    ],
)
def test_a_clock_a_minute_off_is_named_with_its_side(
    age_s: float | None, ahead_s: float | None, same_machine: bool, said: str
) -> None:
    facts = changed(
        chain={"head_age_s": age_s}, orchestrator={"clock_ahead_s": ahead_s, "same_machine": same_machine}
    )
    found = [finding for finding in amiss(facts) if finding.check == "clock"]
    assert len(found) == 1
    assert found[0].verdict is Severity.PROBLEM
    assert said in found[0].found
    assert NTP in (found[0].remedy or "")
    assert [f.check for f in amiss(facts)] == ["clock"]


def test_a_clock_that_nobody_can_confirm_is_a_warning() -> None:
    facts = changed(chain=UNANSWERED, orchestrator=GONE)
    found = [finding for finding in amiss(facts) if finding.check == "clock"]
    assert [(f.verdict, "timedatectl" in (f.remedy or "")) for f in found] == [(Severity.WARNING, True)]
