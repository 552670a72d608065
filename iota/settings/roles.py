"""The settings of one machine, by role. A new setting is a new field here; all else is made from it.

Priority: flags, `IOTA_*` variables, `.env`, defaults. None of them changes what a run computes: that is in
the `RunSpec`, which is the same on all machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from iota.settings.declaration import Settings, setting
from iota.settings.kinds import (
    ByteCount,
    ByteRate,
    Folder,
    HomePath,
    HttpUrl,
    Network,
    OwnHostPort,
    PublicHostPort,
    Ss58,
    StoreUrl,
    Threads,
)

WALLET: Final = ("wallet_name", "wallet_hotkey", "wallet_path")
"""The settings that name a wallet and its hotkey."""
CHAIN: Final = ("network", "chain_endpoint", "netuid")
"""The settings that name a subnet."""
MAX_PASSES: Final = 8.0
"""Passes over the training data beyond which a run is refused: more than four are worth little (Muennighoff
et al., "Scaling Data-Constrained Language Models", 2023), and thousands are a mistake."""
_MAX_PORT = 65535


class Activations(StrEnum):
    """What a forward keeps for its backward. The bits are the same under all of them."""

    AUTO = "auto"
    """The first of those below for which the device has memory."""
    KEEP = "keep"
    """The whole graph."""
    SELECTIVE = "selective"
    """What matrix products and attention make; norms and SwiGLU are computed again."""
    OFFLOAD = "offload"
    """The same, in host memory, on its way there and back while the device computes."""
    RECOMPUTE = "recompute"
    """Each layer's input; layers are computed again, one at a time."""


class Ways(StrEnum):
    """How a miner's frames may travel."""

    AUTO = "auto"
    """By the best way to each peer; the object store is the last resort."""
    DIRECT = "direct"
    """Over TCP to a peer's address, else by the store."""
    IROH = "iroh"
    """Over QUIC, through NATs, else by the store."""
    STORE = "store"
    """By the store alone: this miner takes no connections."""


class LogLevel(StrEnum):
    """Levels of the standard library's `logging`."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, kw_only=True)
class ChainSettings(Settings):
    """The hotkey of this machine and its chain; for all roles but the store."""

    wallet_name: str = setting(
        "default",
        "Wallet that holds this node's hotkey.",
        "IOTA_WALLET_NAME",
        "BT_WALLET",
        flags=("--wallet.name", "--wallet-name"),
    )
    wallet_hotkey: str = setting(
        "default",
        "The hotkey's name in that wallet. One process per hotkey.",
        "IOTA_WALLET_HOTKEY",
        "BT_WALLET_HOTKEY",
        flags=("--wallet.hotkey", "--wallet-hotkey"),
    )
    wallet_path: HomePath = setting(
        Path("~/.bittensor/wallets"),
        "Folder of wallets.",
        "IOTA_WALLET_PATH",
        "BT_WALLET_PATH",
        flags=("--wallet.path", "--wallet-path"),
    )
    network: Network = setting(
        "finney",
        "The chain: finney, test, local, a node's wss:// URL, or an embedded ledger's http:// URL.",
        "IOTA_NETWORK",
        "BT_NETWORK",
        flags=("--network", "--subtensor.network", "--subtensor-network"),
    )
    chain_endpoint: Network | None = setting(
        None,
        "URL of a chain node, in place of the network's own.",
        "IOTA_CHAIN_ENDPOINT",
        "BT_CHAIN_ENDPOINT",
        flags=("--chain-endpoint", "--subtensor.chain_endpoint", "--subtensor-chain-endpoint"),
    )
    netuid: int = setting(9, "The subnet's number.", "IOTA_NETUID", gt=0, le=65535)
    log_level: LogLevel = setting(
        LogLevel.INFO, "Least severe message that is logged: DEBUG, INFO, WARNING or ERROR.", "IOTA_LOG_LEVEL"
    )

    @property
    def chain(self) -> str:
        """The chain's address, as `open_chain` takes it."""
        return self.chain_endpoint or self.network


@dataclass(frozen=True, kw_only=True)
class WalletSettings(ChainSettings):
    """`iota wallet` and the `register` of both roles: commands that may open a coldkey."""

    wallet_password: str | None = setting(
        None,
        "The coldkey's password, if there is no terminal to ask in. No node needs it: never set it on one.",
        "IOTA_WALLET_PASSWORD",
        "BT_WALLET_PASSWORD",
        flags=(),  # a command line is visible to every user of the machine
        secret=True,
    )
    wallet_password_file: HomePath | None = setting(
        None,
        "A file with the coldkey's password in one line, used where the password itself is not set.",
        "IOTA_WALLET_PASSWORD_FILE",
        "BT_WALLET_PASSWORD_FILE",
        flags=(),
    )


@dataclass(frozen=True, kw_only=True)
class NodeSettings(ChainSettings):
    """A miner or a validator."""

    orchestrator: HttpUrl = setting(
        "http://127.0.0.1:8400", "URL of the run's orchestrator.", "IOTA_ORCHESTRATOR"
    )
    orchestrator_hotkey: Ss58 | None = setting(
        None,
        "Hotkey (ss58 address) that must sign for the orchestrator; another server is refused.",
        "IOTA_ORCHESTRATOR_HOTKEY",
        unset="the one that the data directory remembers, else the first that answers",
    )
    allow_private_urls: bool = setting(
        False,
        "Let the orchestrator name URLs on this machine or its private network, though it is elsewhere.",
        "IOTA_ALLOW_PRIVATE_URLS",
    )
    data_dir: Folder = setting(
        Path("~/.iota"),
        "Folder of receipts, frames, snapshots, verdicts and shards; one per node.",
        "IOTA_DATA_DIR",
    )
    device: str = setting(
        "auto",
        "Device of the tensors: auto (a CUDA device, else the CPU), cpu, cuda, cuda:1, mps and so on.",
        "IOTA_DEVICE",
    )
    threads: Threads | None = setting(
        None,
        "CPU threads for compute.",
        "IOTA_THREADS",
        unset="all cores for a miner, 1 for a validator",
        ge=1,
    )


@dataclass(frozen=True, kw_only=True)
class MinerSettings(NodeSettings):
    """`iota-miner`."""

    worker: HomePath | None = setting(
        None,
        "Worker file from `iota-miner certify`, to mine with its key and without a wallet, whose settings"
        " then do not count.",
        "IOTA_MINER_WORKER",
        unset="none: mine with the wallet's hotkey",
    )

    activations: Activations = setting(
        Activations.AUTO,
        "What a forward keeps for its backward: keep (all), selective, offload (selective, in host memory),"
        " recompute (inputs of layers), or auto: the first of these that there is memory for.",
        "IOTA_MINER_ACTIVATIONS",
    )
    snapshot_bytes: ByteCount | None = setting(
        None,
        "Largest disk for the weight snapshots that audits may ask for: 500MB, 4GiB or a number of bytes.",
        "IOTA_MINER_SNAPSHOT_BYTES",
        unset="what the disk has",
        ge=0,
    )
    transport: Ways = setting(
        Ways.AUTO,
        "How frames travel: auto (the best way to each peer), direct (TCP), iroh (QUIC, through NATs) or"
        " store. Each falls back on the object store.",
        "IOTA_MINER_TRANSPORT",
    )
    listen: OwnHostPort = setting(
        "0.0.0.0:0",
        "IP address and port, of TCP and of UDP, at which peers reach this miner; port 0 is any free one.",
        "IOTA_MINER_LISTEN",
    )
    public_address: PublicHostPort | None = setting(
        None,
        "HOST:PORT at which peers reach this miner from outside, if a router forwards it here.",
        "IOTA_MINER_PUBLIC_ADDRESS",
        unset="what this machine and the orchestrator see",
    )
    tls: bool = setting(
        False,
        "Have peers encrypt what they send over TCP. Frames are signed with or without it.",
        "IOTA_MINER_TLS",
    )
    relay: HttpUrl | None = setting(
        None,
        "URL of an iroh relay, for peers that can be reached in no other way.",
        "IOTA_MINER_RELAY",
    )
    max_upload: ByteRate | None = setting(
        None,
        "Most that frames and other objects may take of the uplink: 20Mbps (bits) or 2.5MB/s (bytes).",
        "IOTA_MINER_MAX_UPLOAD",
        unset="no bound",
        ge=32 << 10,
    )


@dataclass(frozen=True, kw_only=True)
class ValidatorSettings(NodeSettings):
    """`iota-validator`."""

    compute_share: float = setting(
        0.10,
        "Largest share of this machine's compute that audits may take: of its cores and of its accelerator.",
        "IOTA_VALIDATOR_COMPUTE_SHARE",
        gt=0,
        le=1,
    )
    profiles: HomePath | None = setting(
        None,
        "Folder of tolerance profiles from `iota-validator calibrate`.",
        "IOTA_VALIDATOR_PROFILES",
        unset="those that this build ships",
    )


@dataclass(frozen=True, kw_only=True)
class OrchestratorSettings(ChainSettings):
    """`iota-orchestrator`."""

    spec: HomePath | None = setting(
        None, "The run's spec, a JSON file from `iota spec`; needed.", "IOTA_ORCHESTRATOR_SPEC"
    )
    journal: HomePath | None = setting(
        None,
        "The run's journal, an SQLite file; the orchestrator needs it, and makes it if it is not there.",
        "IOTA_ORCHESTRATOR_JOURNAL",
    )
    manifest: HomePath | None = setting(
        None,
        "Manifest of the data, a file from `iota data prepare`; needed.",
        "IOTA_ORCHESTRATOR_MANIFEST",
    )
    max_passes: float = setting(
        MAX_PASSES,
        "Most passes over the training data that a run may make.",
        "IOTA_ORCHESTRATOR_MAX_PASSES",
        gt=0,
    )
    store: StoreUrl = setting(
        "http://127.0.0.1:8701",
        "The object store: http://HOST:PORT (embedded) or s3://BUCKET/PREFIX.",
        "IOTA_ORCHESTRATOR_STORE",
    )
    store_secret_file: HomePath | None = setting(
        None, "File with the embedded store's secret.", "IOTA_ORCHESTRATOR_STORE_SECRET_FILE"
    )
    store_public_url: HttpUrl | None = setting(
        None,
        "URL at which nodes reach the embedded store, if it is not --store.",
        "IOTA_ORCHESTRATOR_STORE_PUBLIC_URL",
    )
    host: str = setting(
        "0.0.0.0", "Address to listen on; 127.0.0.1 for this machine alone.", "IOTA_ORCHESTRATOR_HOST"
    )
    port: int = setting(
        8400, "Port to listen on; 0 picks a free one.", "IOTA_ORCHESTRATOR_PORT", ge=0, le=_MAX_PORT
    )
    allow: HomePath | None = setting(
        None,
        "File of hotkeys that may take part, one a line, in place of the metagraph's.",
        "IOTA_ORCHESTRATOR_ALLOW",
    )
    max_workers: int = setting(
        64,
        "Most workers of one hotkey in the run, by certificate; one that left counts until it is revoked.",
        "IOTA_ORCHESTRATOR_MAX_WORKERS",
        ge=0,
    )
    silence: float = setting(
        15.0, "Seconds of silence after which a node is taken for lost.", "IOTA_ORCHESTRATOR_SILENCE", gt=0
    )
    head_poll: float = setting(
        6.0,
        "Seconds between two looks at the chain's newest block; half a block's time is enough.",
        "IOTA_ORCHESTRATOR_HEAD_POLL",
        gt=0,
    )


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Settings):
    """`iota store serve`."""

    root: Folder | None = setting(None, "Folder that holds the objects; needed.", "IOTA_STORE_ROOT")
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.", "IOTA_STORE_HOST")
    port: int = setting(8701, "Port to listen on; 0 picks a free one.", "IOTA_STORE_PORT", ge=0, le=_MAX_PORT)
    secret_file: HomePath | None = setting(
        None,
        "File with the secret that signs URLs; needed, and made if it is not there.",
        "IOTA_STORE_SECRET_FILE",
    )


ROLES: Final[dict[type[Settings], str]] = {
    ChainSettings: "Every role with a hotkey",
    WalletSettings: "iota wallet, iota-miner register, iota-validator register",
    NodeSettings: "Miners and validators",
    MinerSettings: "iota-miner",
    ValidatorSettings: "iota-validator",
    OrchestratorSettings: "iota-orchestrator",
    StoreSettings: "iota store serve",
}
"""Every class of settings, with the commands or roles that have what it adds; in the order of the page."""
