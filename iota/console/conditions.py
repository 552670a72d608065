"""Conditions that pass by themselves: what a node says of each, how it waits, and who can end it sooner.

docs/conditions.md is made from this table (`iota.console.conditions_page`). `iota.console.classification`
tells which condition an error is, and `iota.console.watch` waits.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Self

from iota.retry import Backoff

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0


class Condition(Enum):
    """One condition: its name, what the node says, its pauses and end in seconds, who must act, and how."""

    text: str
    backoff: Backoff
    end_s: float
    """A node that could not work for so long exits with code 1, and its supervisor starts it anew."""
    who: str
    remedy: str

    def __new__(
        cls, name: str, text: str, first_s: float, max_s: float, end_s: float, who: str, remedy: str
    ) -> Self:
        made = object.__new__(cls)
        made._value_, made.text, made.end_s, made.who, made.remedy = name, text, end_s, who, remedy
        made.backoff = Backoff(first_s=first_s, max_s=max_s)
        return made

    # ---- the orchestrator -----------------------------------------------------------------------
    AWAY = (
        "orchestrator-away", "the orchestrator does not answer", 0.5, 15.0, DAY_S, "nobody, or you",
        "check --orchestrator, and this machine's network and name server",
    )  # fmt: skip
    BUSY = (
        "orchestrator-busy", "the orchestrator, or a proxy before it, cannot answer now", 0.5, 15.0, DAY_S,
        "the run's owner", "ask the run's owner",
    )  # fmt: skip
    STRANGER = (
        "orchestrator-other-server", "what answers is not the run's orchestrator", 1.0, 15.0, DAY_S,
        "you", "sign in where the network asks for it (a captive portal), take out the proxy, or check"
        " --orchestrator; if the run has a new orchestrator, start this node again, with its"
        " --orchestrator-hotkey",
    )  # fmt: skip
    CERTIFICATE = (
        "orchestrator-certificate",
        "the orchestrator's address gives no secure connection, as with a wrong certificate",
        1.0, 15.0, DAY_S, "you, or the run's owner",
        "sign in where the network asks for it, check this machine's clock, or tell the run's owner",
    )  # fmt: skip
    CLOCK = (
        "clock-off", "this machine's clock is not the orchestrator's", 1.0, 10.0, DAY_S, "you",
        "let it be set over the network (`timedatectl set-ntp true`)",
    )  # fmt: skip
    NOT_REGISTERED = (
        "not-registered", "the hotkey is not registered on the run's subnet", 5.0, 30.0, DAY_S, "you",
        "register it (`iota-miner register` or `iota-validator register`), and wait until that is final",
    )  # fmt: skip
    NO_PERMIT = (
        "no-permit", "the hotkey is registered, and has no validator permit", 5.0, 30.0, DAY_S, "you",
        "add stake; the chain gives permits by stake at each epoch",
    )  # fmt: skip
    NOT_LISTED = (
        "not-listed", "the hotkey is not on the orchestrator's allow-list", 5.0, 30.0, DAY_S,
        "the run's owner", "send the run's owner this hotkey's address",
    )  # fmt: skip
    VERSIONS = (
        "versions-differ", "the orchestrator speaks another protocol version", 30.0, 30.0, 10 * MINUTE_S,
        "you, or the run's owner", "update the older of the two",
    )  # fmt: skip
    OTHER_RUN = (
        "other-run", "the orchestrator has another run now", 5.0, 30.0, 10 * MINUTE_S, "nobody, or you",
        "a validator takes it up when it is started again; a miner needs another --data-dir for it",
    )  # fmt: skip
    REFUSED = (
        "request-refused", "the orchestrator refuses what this node asks", 2.0, 30.0, DAY_S,
        "the run's owner", "update this node; if it lasts, send its log to the run's owner",
    )  # fmt: skip
    # ---- objects ------------------------------------------------------------------------------------
    STORE_AWAY = (
        "store-away", "the object store does not answer", 0.5, 10.0, DAY_S, "the run's owner",
        "check this machine's network, and the store's URL where you gave it; the rest is the run's owner's"
        " to mend",
    )  # fmt: skip
    STORE_FULL = (
        "store-full", "the object store is full", 0.5, 10.0, DAY_S, "the run's owner",
        "the run's owner must make room",
    )  # fmt: skip
    STORE_REFUSES = (
        "store-refuses", "the object store refuses a request", 1.0, 15.0, DAY_S, "the run's owner",
        "check this machine's clock; else it is the run's owner's to mend",
    )  # fmt: skip
    DATA = (
        "data-missing", "training data or objects of the run are missing or damaged", 0.5, 10.0, DAY_S,
        "the run's owner", "the run's owner must restore the shards or the manifest",
    )  # fmt: skip
    # ---- the chain ----------------------------------------------------------------------------------
    CHAIN_AWAY = (
        "chain-away", "the chain does not answer", 0.5, 15.0, DAY_S, "nobody, or you",
        "check --network, or give another node with --chain-endpoint",
    )  # fmt: skip
    CHAIN_ODD = (
        "chain-incompatible", "the chain's node answers in a form that this version does not know", 5.0, 30.0,
        DAY_S, "you", "update this node, or give another chain node with --chain-endpoint",
    )  # fmt: skip
    CHAIN_REFUSES = (
        "chain-refuses", "the chain refuses this hotkey's commitment", 5.0, 30.0, DAY_S, "you",
        "register the hotkey with `iota-validator register`",
    )  # fmt: skip
    # ---- the Hugging Face Hub ----------------------------------------------------------------------
    HUB = (
        "hub-away", "the Hugging Face Hub cannot answer now", 1.0, 30.0, 10 * MINUTE_S, "nobody, or you",
        "check this machine's network and HF_ENDPOINT; the same command later goes on where it stopped",
    )  # fmt: skip
    # ---- this machine -------------------------------------------------------------------------------
    DISK_FULL = (
        "disk-full", "no room is left on this machine's disk", 5.0, 30.0, DAY_S, "you",
        "make room; what was acknowledged is kept",
    )  # fmt: skip
    MACHINE = (
        "machine-error", "this machine fails a system call", 5.0, 30.0, 10 * MINUTE_S, "you",
        "look at the machine's log (`dmesg`) for its disk, memory and open files",
    )  # fmt: skip
    MEMORY = (
        "memory-short", "this machine, or its accelerator, has too little free memory", 5.0, 30.0,
        10 * MINUTE_S, "you", "end what else takes memory there, or take a machine with more",
    )  # fmt: skip
    STATE_LOST = (
        "state-lost", "this replica lost its state again and again", 10.0, 30.0, DAY_S, "you",
        "look at the log above; the miner starts again from the run's base",
    )  # fmt: skip
