"""Judges facts: findings with remedies. Pure."""

from __future__ import annotations

from typing import Final

from iota.doctor.clock import clock, head
from iota.doctor.facts import Facts, HotkeyState, Machine, OrchestratorFacts, Unknown
from iota.doctor.finding import Finding, ok, problem, warning
from iota.doctor.membership import UPDATE, membership
from iota.protocol.messages import PROTOCOL_VERSION, Role

TESTED_PYTHON: Final = (3, 11)
TESTED_SDK: Final = "11.3"
_SLOW_S: Final = 2.0
_MIN_BYTES: Final = 1 << 30
"""With less free disk the first snapshot may fill it."""


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
    if files.mode & 0o077:
        others = f"other users can open it (mode {files.mode:03o})"
        found.append(problem("hotkey file", others, f"run `chmod 600 {files.hotkey_path}`"))
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
    return ok("hotkey", f"{files.hotkey} in {path}")


def chain(facts: Facts) -> list[Finding]:
    """Reachability and version of the chain."""
    seen = facts.chain
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
    return [*found, _graphics_card(facts.machine.gpus)] if facts.role is Role.MINER else found


def _data_directory(seen: Machine) -> Finding:
    if seen.writable:
        return ok("data directory", f"{seen.data_dir} can be written")
    remedy = f"give this user the folder: `sudo chown -R $USER {seen.data_dir}`, or another with --data-dir"
    return problem("data directory", f"{seen.data_dir} cannot be written", remedy)


def _disk(facts: Facts) -> Finding:
    free_bytes = facts.machine.free_bytes
    free, wanted = f"{free_bytes / 1e9:.1f} GB free", f"{facts.wanted_bytes / 1e9:.0f} GB"
    if free_bytes < _MIN_BYTES:
        return problem("disk", free, f"free {wanted}, or give a folder on another disk with --data-dir")
    if free_bytes < facts.wanted_bytes:
        remedy = f"{wanted} are safe; free some, or give a folder on another disk with --data-dir"
        return warning("disk", free, remedy)
    return ok("disk", free)


def _graphics_card(gpus: tuple[str, ...] | Unknown) -> Finding:
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
    return ok("gpu", "; ".join(gpus))
