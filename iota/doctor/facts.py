"""Facts about a node, which `iota.doctor.findings` judges."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from iota.chain.chain import Block, ChainInfo, RegistrationTerms, Subnet
from iota.planning import Needs
from iota.protocol.messages import Role
from iota.protocol.workers import Certificate
from iota.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be read; the reason is one sentence without secrets."""

    reason: str
    drifted: bool = False
    """True where versions do not fit, so that another node of the chain would not help."""


@dataclass(frozen=True, slots=True)
class Software:
    """Versions of the process."""

    python: tuple[int, int, int]
    sdk: str | None
    """Version of the installed `bittensor` package."""
    versions: str = ""
    """All versions on one line (`iota.console.version`)."""
    torch_has_cuda: bool = True
    """False where the installed torch was built without CUDA, as its build for CPUs."""


class HotkeyState(StrEnum):
    """State of the hotkey's file."""

    USABLE = "usable"
    MISSING = "missing"
    ENCRYPTED = "encrypted"
    UNREADABLE = "unreadable"
    NO_WORKER = "no worker"
    """The worker file that takes the wallet's place cannot be used."""


@dataclass(frozen=True, slots=True)
class WalletFiles:
    """A node's key files. The coldkey's private file is never opened."""

    hotkey_path: Path
    state: HotkeyState
    complaint: str
    """Why the hotkey cannot be used, with a remedy; empty if it can."""
    hotkey: str | None
    """Its address; with a worker file that of the owner, whom the subnet must know."""
    mode: int
    """Permission bits of the hotkey's file; 0 if it is missing."""
    coldkey_path: Path
    coldkey_is_here: bool
    coldkey: str | None
    """Its address, from `coldkeypub.txt`."""
    certificate: Certificate | None = None
    """Of the worker file, if one is given; `hotkey_path` is then that file."""


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """The chain's answers, each of which can be unknown."""

    endpoint: str
    info: ChainInfo | Unknown
    latency_s: float | None
    """Duration of one small read."""
    head: Block | Unknown
    head_age_s: float | None
    """Age of the newest block by this machine's clock, in seconds."""
    subnet: Subnet | Unknown
    terms: RegistrationTerms | Unknown
    coldkey: str | None
    """The paying account: the hotkey's owner, else that of `coldkeypub.txt`; None if neither is known."""
    balance_tao: float | Unknown | None
    """The coldkey's balance; None if the coldkey is not known."""
    asked: bool = True
    """False with a worker file and no chain named: the machine needs none, and the default may be another."""


@dataclass(frozen=True, slots=True)
class OrchestratorFacts:
    """The orchestrator's answer to `GET /v1/run`."""

    endpoint: str
    run: str
    epoch: int
    versions: tuple[int, ...]
    """Protocol versions that it speaks."""
    spec: RunSpec
    latency_s: float
    clock_ahead_s: float | None
    """This machine's clock minus the orchestrator's, to a second; None if its answer has no date."""
    same_machine: bool
    """True where it is reached over loopback, so that both have one clock and agreement proves nothing."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Disk and graphics cards."""

    data_dir: Path
    writable: bool
    """True where the data directory can be written, or created."""
    free_bytes: int
    gpus: tuple[str, ...] | Unknown
    """The cards that `nvidia-smi` lists; empty if there is no such program."""
    memory_bytes: int
    """Main memory, all of it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts about one node."""

    role: Role
    wallet_flags: str
    """Flags that name this wallet in another command."""
    chain_flags: str
    """Flags that name this subnet in another command."""
    netuid: int
    orchestrator_endpoint: str
    needs: tuple[Needs, ...]
    """What each stage of the run needs; empty where the spec is not known."""
    software: Software
    wallet: WalletFiles
    chain: ChainFacts
    orchestrator: OrchestratorFacts | Unknown
    machine: Machine
    revoked: bool = False
    """The wallet's worker is revoked in the run, by the orchestrator's record of it."""
