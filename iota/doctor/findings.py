"""Judges facts: findings with remedies. Pure."""

from __future__ import annotations

from typing import Final

from iota.doctor.clock import clock, head
from iota.doctor.facts import Facts, HotkeyState, OrchestratorFacts, Unknown
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
    return found


def wallet(facts: Facts) -> list[Finding]:
    """State and permissions of the hotkey's file, and a coldkey that should not be on a node."""
    files, path = facts.wallet, facts.wallet.hotkey_path
    found = []
    if files.state is HotkeyState.MISSING:
        new = f"iota wallet new {facts.wallet_flags}"
        found.append(
            problem("hotkey", f"there is none at {path}", f"make one: `{new}`, or restore your backup")
        )
    elif files.state is HotkeyState.ENCRYPTED:
        remedy = "a node cannot ask for a password: use a hotkey without one (`iota wallet new` makes such)"
        found.append(problem("hotkey", f"{path} is encrypted", remedy))
    elif files.state is HotkeyState.UNREADABLE:
        remedy = "restore it from your backup, or give the user that runs the node access to it"
        found.append(problem("hotkey", files.complaint.split(":")[0], remedy))
    else:
        found.append(ok("hotkey", f"{files.hotkey} in {path}"))
    if files.mode & 0o077:
        found.append(
            problem(
                "hotkey file", f"other users can open it (mode {files.mode:03o})", f"run `chmod 600 {path}`"
            )
        )
    if files.coldkey_is_here:
        found.append(
            warning(
                "coldkey",
                f"its private key is on this machine ({files.coldkey_path})",
                "no node needs it: keep its mnemonic on paper, and move the file off this machine",
            )
        )
    else:
        found.append(ok("coldkey", "its private key is not on this machine"))
    return found


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
    seen, found = facts.machine, []
    if not seen.writable:
        remedy = (
            f"give this user the folder: `sudo chown -R $USER {seen.data_dir}`, or another with --data-dir"
        )
        found.append(problem("data directory", f"{seen.data_dir} cannot be written", remedy))
    else:
        found.append(ok("data directory", f"{seen.data_dir} can be written"))
    free, wanted = f"{seen.free_bytes / 1e9:.1f} GB free", f"{facts.wanted_bytes / 1e9:.0f} GB"
    if seen.free_bytes < _MIN_BYTES:
        found.append(
            problem("disk", free, f"free {wanted}, or give a folder on another disk with --data-dir")
        )
    elif seen.free_bytes < facts.wanted_bytes:
        remedy = f"{wanted} are safe; free some, or give a folder on another disk with --data-dir"
        found.append(warning("disk", free, remedy))
    else:
        found.append(ok("disk", free))
    if facts.role is Role.MINER:
        found.append(_graphics_card(seen.gpus))
    return found


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
