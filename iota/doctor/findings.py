"""Judges facts: findings with remedies. Pure."""

from __future__ import annotations

import re
from typing import Final

from iota.console.command_flags import command_line
from iota.console.counts import counted
from iota.doctor.clock import clock, head
from iota.doctor.facts import Facts, HotkeyState, Machine, OrchestratorFacts, Unknown
from iota.doctor.finding import Finding, ok, problem, warning
from iota.doctor.membership import UPDATE, membership
from iota.planning import Machine as PlannedMachine
from iota.planning import shortfalls
from iota.protocol.messages import PROTOCOL_VERSION, Role

TESTED_PYTHON: Final = (3, 11)
TESTED_SDK: Final = "11.3"
_SLOW_S: Final = 2.0
_MIN_BYTES: Final = 1 << 30
"""With less free disk a node may fill it at once, whatever the run is."""
_SPARE_BYTES: Final = 10 << 30
"""Free disk that a validator should have, and a miner whose run is not known."""


def findings(facts: Facts) -> list[Finding]:
    """All findings, in the order in which to solve them."""
    return [
        *software(facts),
        *wallet(facts),
        *chain(facts),
        *[found for found in (head(facts), clock(facts)) if found is not None],
        *membership(facts),
        orchestrator(facts),
        *machine(facts),
    ]


def software(facts: Facts) -> list[Finding]:
    """Versions of Python and the SDK against those that this version was tested with."""
    python, sdk = facts.software.python, facts.software.sdk
    text = ".".join(str(part) for part in python)
    tested = ".".join(str(part) for part in TESTED_PYTHON)
    if python[:2] == TESTED_PYTHON:
        found = [ok("python", text)]
    else:
        found = [warning("python", f"{text}; tested with {tested}", f"if it fails, use Python {tested}")]
    install = f'install the one that fits: pip install "bittensor=={TESTED_SDK}.*"'
    if sdk is None:
        found.append(problem("sdk", "the package bittensor is not installed", install))
    elif sdk.split(".")[:2] != TESTED_SDK.split("."):
        found.append(problem("sdk", f"bittensor {sdk}; this version is made for {TESTED_SDK}", install))
    else:
        found.append(ok("sdk", f"bittensor {sdk}"))
    return [ok("iota", facts.software.versions), *found]


def wallet(facts: Facts) -> list[Finding]:
    """State and permissions of the hotkey's file, and a coldkey that should not be on a node."""
    files = facts.wallet
    found = [_hotkey(facts)]
    found += [finding for finding in (_other_run(facts), _revoked(facts)) if finding is not None]
    if files.mode & 0o077:
        others = f"other users can open it (mode {files.mode:03o})"
        found.append(problem("hotkey file", others, f"run `{command_line('chmod 600', files.hotkey_path)}`"))
    if files.coldkey_is_here:
        here = f"its private key is on this machine ({files.coldkey_path})"
        remedy = "no node needs it: keep its mnemonic on paper, and move the file off this machine"
        return [*found, warning("coldkey", here, remedy)]
    return [*found, ok("coldkey", "its private key is not on this machine")]


def _hotkey(facts: Facts) -> Finding:
    files, path = facts.wallet, facts.wallet.hotkey_path
    if files.state is HotkeyState.MISSING:
        remedy = f"make one: `iota wallet new {facts.wallet_flags}`, or restore your backup"
        return problem("hotkey", f"there is none at {path}", remedy)
    if files.state is HotkeyState.ENCRYPTED:
        remedy = "a node cannot ask for a password: use a hotkey without one (`iota wallet new` makes such)"
        return problem("hotkey", f"{path} is encrypted", remedy)
    if files.state is HotkeyState.UNREADABLE:
        remedy = "restore it from your backup, or give the user that runs the node access to it"
        return problem("hotkey", files.complaint.split(":")[0], remedy)
    if files.state is HotkeyState.NO_WORKER:
        what, _, remedy = files.complaint.rpartition(": ")
        return problem("worker", what, remedy)
    if files.certificate is not None:
        return ok("worker", f"{files.certificate.worker} of {files.hotkey}, in {path}")
    return ok("hotkey", f"{files.hotkey} in {path}")


def _other_run(facts: Facts) -> Finding | None:
    """A problem where the worker's certificate is of another run than the orchestrator's."""
    certificate, seen = facts.wallet.certificate, facts.orchestrator
    if certificate is None or isinstance(seen, Unknown) or certificate.run == seen.run:
        return None
    runs = f"the certificate is of run {certificate.run[:12]}, and the orchestrator's is {seen.run[:12]}"
    return problem("worker", runs, "where the owner's hotkey is, make one for this run: `iota-miner certify`")


def _revoked(facts: Facts) -> Finding | None:
    certificate = facts.wallet.certificate
    if certificate is None or not facts.revoked:
        return None
    gone = f"{certificate.owner} has revoked {certificate.worker} in this run, which refuses it for ever"
    return problem("worker", gone, "where the owner's hotkey is, make another: `iota-miner certify`")


def chain(facts: Facts) -> list[Finding]:
    """Reachability and version of the chain."""
    seen = facts.chain
    if not seen.asked:
        return [ok("chain", "not asked: a worker needs none; with --network, its owner is looked up there")]
    if isinstance(seen.info, Unknown):
        remedy = "check the network, or give another node with --chain-endpoint or --network"
        return [
            problem("chain", f"{seen.endpoint}: {seen.info.reason}", UPDATE if seen.info.drifted else remedy)
        ]
    found = [ok("chain", f"{seen.endpoint} runs {seen.info.version}")]
    if isinstance(seen.head, Unknown):
        found.append(
            problem("chain head", seen.head.reason, "give another node with --chain-endpoint, or try again")
        )
    elif seen.latency_s is not None and seen.latency_s > _SLOW_S:
        slow = f"{seen.endpoint} takes {seen.latency_s:.1f} s for a small read"
        found.append(warning("chain latency", slow, "give a nearer node with --chain-endpoint"))
    elif seen.latency_s is not None:
        found.append(ok("chain latency", f"{seen.latency_s * 1000:.0f} ms"))
    return found


def orchestrator(facts: Facts) -> Finding:
    """Reachability and protocol version of the orchestrator."""
    seen = facts.orchestrator
    if not isinstance(seen, OrchestratorFacts):
        if facts.needs:  # of --spec, since the orchestrator gave none
            away = f"{facts.orchestrator_endpoint}: {seen.reason}"
            return ok("orchestrator", f"{away}; with --spec none is needed before the run begins")
        return problem(
            "orchestrator",
            f"{facts.orchestrator_endpoint}: {seen.reason}",
            "give the run's own with --orchestrator URL; if it is right, ask the run's owner",
        )
    if PROTOCOL_VERSION not in seen.versions:
        theirs = ", ".join(str(version) for version in seen.versions)
        return problem(
            "orchestrator",
            f"{seen.endpoint} speaks protocol {theirs}, and this version {PROTOCOL_VERSION}",
            "update the older of the two",
        )
    latency = f"{seen.latency_s * 1000:.0f} ms"
    return ok(
        "orchestrator",
        f"{seen.endpoint}: run {seen.run[:12]}, epoch {seen.epoch}, protocol {PROTOCOL_VERSION}, {latency}",
    )


def machine(facts: Facts) -> list[Finding]:
    """The data directory, its disk, and the graphics card of a miner."""
    found = [_data_directory(facts.machine), _disk(facts)]
    if facts.role is Role.MINER:
        found.append(_graphics_card(facts.machine.gpus, facts.software.torch_has_cuda))
        found += _memory(facts)
    return found


def _data_directory(seen: Machine) -> Finding:
    if seen.writable:
        return ok("data directory", f"{seen.data_dir} can be written")
    command = command_line("sudo chown -R $USER", seen.data_dir)
    remedy = f"give this user the folder: `{command}`, or another with --data-dir"
    return problem("data directory", f"{seen.data_dir} cannot be written", remedy)


def _disk(facts: Facts) -> Finding:
    free_bytes = facts.machine.free_bytes
    stages = [needs.disk for needs in facts.needs] if facts.role is Role.MINER else []
    least, most = min(stages, default=_MIN_BYTES), max(stages, default=_SPARE_BYTES)
    free, wanted = f"{free_bytes / 1e9:.1f} GB free", f"{most / 1e9:.1f} GB"
    if free_bytes < least:
        needed = f"{least / 1e9:.1f} GB at least, and {wanted} for every stage"
        return problem("disk", free, f"free {needed}, or give a folder on another disk with --data-dir")
    if free_bytes < most:
        remedy = f"{wanted} are safe; free some, or give a folder on another disk with --data-dir"
        return warning("disk", free, remedy)
    return ok("disk", free)


def _memory(facts: Facts) -> list[Finding]:
    """Memory of the card, else of the machine, against the stages of the run; none without a spec."""
    seen, cards = facts.machine, facts.machine.gpus
    if not facts.needs or isinstance(cards, Unknown):
        return []
    card = max((size for size in map(_card_bytes, cards) if size is not None), default=None)
    if cards and card is None:
        return []
    hosts = PlannedMachine(seen.memory_bytes, disk=2**63, place=seen.data_dir, card=card)
    short = {needs.stage: found for needs in facts.needs if (found := shortfalls([needs], hosts))}
    where = f"{(card or seen.memory_bytes) / 1e9:.1f} GB on the {'card' if card else 'CPU'}"
    if not short:
        return [ok("memory", f"{where}: enough for each stage of the run")]
    reason, _, remedy = next(iter(short.values()))[0].rpartition(": ")
    short_of = f"{where}: {reason}"
    if len(short) == len(facts.needs):
        return [problem("memory", short_of, remedy)]
    fits = len(facts.needs) - len(short)
    return [warning("memory", f"{short_of}; {fits} of {counted(len(facts.needs), 'stage')} fit", remedy)]


def _card_bytes(card: str) -> int | None:
    """Memory of a card from its line of `nvidia-smi`, such as `NVIDIA A100, 81920 MiB`; else None."""
    match = re.search(r"(\d+) MiB$", card)
    return int(match[1]) << 20 if match else None


def _graphics_card(gpus: tuple[str, ...] | Unknown, torch_has_cuda: bool) -> Finding:
    if isinstance(gpus, Unknown):
        return problem(
            "gpu",
            f"nvidia-smi: {gpus.reason}",
            "the driver is broken or stuck: run `nvidia-smi`, and reboot if it hangs",
        )
    if not gpus:
        return warning(
            "gpu",
            "no NVIDIA driver on this machine: a miner would compute on the CPU",
            "install the driver if there is a card; without one, only tiny runs are of use",
        )
    cards = "; ".join(gpus)
    if not torch_has_cuda:
        return warning(
            "gpu",
            f"{cards}; the installed torch has no CUDA: a miner would compute on the CPU",
            "install the build that fits, in the checkout: `IOTA_TORCH=cuda ./scripts/up --help`",
        )
    return ok("gpu", cards)
