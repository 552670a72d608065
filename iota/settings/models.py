"""What an operator sets on one machine: flags, then `IOTA_*` environment, then `.env`, then defaults.

This is the only file that reads the environment. What a run computes is never set here: that is
the `RunSpec`, and it is the same for everybody.
"""

from __future__ import annotations

import difflib
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from dotenv.parser import parse_stream
from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_FILE = ".env"
"""Read from the folder that a command is started in."""
PREFIX = "IOTA_"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?|[kmgt]i)b?", re.IGNORECASE)


class Recompute(StrEnum):
    """Whether a backward recomputes its forward: `auto` does so when memory is short."""

    NEVER = "never"
    AUTO = "auto"
    ALWAYS = "always"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def parse_bytes(value: object) -> object:
    """A size in bytes from text such as `4GiB`, `500MB` or `1048576`; other values unchanged."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size: write 500MB, 4GiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) else value


ByteCount = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
HomePath = Annotated[Path, BeforeValidator(_expanded)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _env(default: Any, *names: str) -> Any:
    """A field set by the first of these variables that is there."""
    return Field(default, validation_alias=AliasChoices(*names))


class ChainSettings(BaseSettings):
    """Who this machine is and which chain it works with: every role has these."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    wallet_name: str = _env("default", "IOTA_WALLET_NAME", "BT_WALLET")
    """The wallet that holds this node's hotkey."""
    wallet_hotkey: str = _env("default", "IOTA_WALLET_HOTKEY", "BT_WALLET_HOTKEY")
    """The hotkey's name in that wallet. One process per hotkey."""
    wallet_path: HomePath = _env(Path("~/.bittensor/wallets"), "IOTA_WALLET_PATH", "BT_WALLET_PATH")
    """The folder of wallets."""
    network: str = _env("finney", "IOTA_NETWORK", "BT_NETWORK")
    """The chain: a network's name, or the URL of an embedded ledger (http://127.0.0.1:9944)."""
    chain_endpoint: str | None = _env(None, "IOTA_CHAIN_ENDPOINT", "BT_CHAIN_ENDPOINT")
    """A node of the chain to talk to, instead of the network's own."""
    netuid: Annotated[int, Field(gt=0, le=65535)] = _env(9, "IOTA_NETUID")
    """The subnet's number."""
    log_level: LogLevel = _env(LogLevel.INFO, "IOTA_LOG_LEVEL")
    """How much a process says: DEBUG, INFO, WARNING or ERROR."""

    @property
    def chain(self) -> str:
        """What `open_chain` takes."""
        return self.chain_endpoint or self.network

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """The settings with `flags` laid over them; a flag that is None was not given.

        Raises:
            ValueError: an unknown `IOTA_*` name, or a value that does not fit; one sentence each.
        """
        check_names()
        unknown = flags.keys() - cls.model_fields.keys()
        assert not unknown, f"{cls.__name__} has no {sorted(unknown)}"
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            raise ValueError(_sentence(cls, error)) from None


class WalletSettings(ChainSettings):
    """`iota wallet`, `iota-miner register` and `iota-validator register`: what may open a coldkey."""

    wallet_password: SecretStr | None = _env(None, "IOTA_WALLET_PASSWORD", "BT_WALLET_PASSWORD")
    """The coldkey's password, where nobody can be asked for it. No node needs it: never set it on one."""
    wallet_password_file: HomePath | None = _env(None, "IOTA_WALLET_PASSWORD_FILE", "BT_WALLET_PASSWORD_FILE")
    """A file with the coldkey's password in one line, used where the password itself is not set."""


class NodeSettings(ChainSettings):
    """A miner or a validator."""

    orchestrator: Annotated[str, Field(pattern=r"^https?://")] = _env(
        "http://127.0.0.1:8400", "IOTA_ORCHESTRATOR"
    )
    """URL of the run's orchestrator."""
    data_dir: HomePath = _env(Path("~/.iota"), "IOTA_DATA_DIR")
    """Where the node keeps its receipts, frames, snapshots and shards. One folder per node."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = _env(None, "IOTA_THREADS")
    """CPU threads for compute; if not set, a miner takes all cores and a validator one."""


class MinerSettings(NodeSettings):
    """`iota-miner`."""

    device: str = _env("auto", "IOTA_DEVICE")
    """Where tensors live: auto, cpu, cuda, cuda:1 and so on."""
    recompute: Recompute = _env(Recompute.AUTO, "IOTA_MINER_RECOMPUTE")
    """Recompute forwards in the backward: never, auto (when memory is short) or always."""
    snapshot_bytes: ByteCount = _env(4 << 30, "IOTA_MINER_SNAPSHOT_BYTES")
    """Disk for the weight snapshots that audits may ask for."""


class ValidatorSettings(NodeSettings):
    """`iota-validator`."""

    compute_share: Annotated[float, Field(gt=0, le=1)] = _env(0.10, "IOTA_VALIDATOR_COMPUTE_SHARE")
    """Largest share of this machine's compute that audits may take."""


class OrchestratorSettings(ChainSettings):
    """`iota-orchestrator`."""

    host: str = _env("0.0.0.0", "IOTA_ORCHESTRATOR_HOST")
    """Address to listen on; 127.0.0.1 for this machine alone."""
    port: Port = _env(8400, "IOTA_ORCHESTRATOR_PORT")
    """Port to listen on; 0 picks a free one."""
    spec: HomePath | None = _env(None, "IOTA_ORCHESTRATOR_SPEC")
    """The RunSpec's JSON file."""
    journal: HomePath | None = _env(None, "IOTA_ORCHESTRATOR_JOURNAL")
    """The journal's SQLite file; created if it is not there."""
    manifest: HomePath | None = _env(None, "IOTA_ORCHESTRATOR_MANIFEST")
    """The manifest of the tokenized shards, as `iota data prepare` wrote it."""
    store: str = _env("http://127.0.0.1:8701", "IOTA_ORCHESTRATOR_STORE")
    """The object store: http://HOST:PORT (embedded) or s3://BUCKET/PREFIX."""
    store_secret_file: HomePath | None = _env(None, "IOTA_ORCHESTRATOR_STORE_SECRET_FILE")
    """File with the embedded store's secret."""
    store_public_url: str | None = _env(None, "IOTA_ORCHESTRATOR_STORE_PUBLIC_URL")
    """What nodes reach the embedded store by, where that is another URL."""
    allow: HomePath | None = _env(None, "IOTA_ORCHESTRATOR_ALLOW")
    """File of hotkeys that may take part, one a line, instead of the metagraph's."""
    silence: Annotated[float, Field(gt=0)] = _env(15.0, "IOTA_ORCHESTRATOR_SILENCE")
    """Seconds without a word after which a node is taken for lost."""
    head_poll: Annotated[float, Field(gt=0)] = _env(6.0, "IOTA_ORCHESTRATOR_HEAD_POLL")
    """Seconds between two looks at the chain's newest block; half a block's time is enough."""


class StoreSettings(ChainSettings):
    """`iota store serve`."""

    root: HomePath | None = _env(None, "IOTA_STORE_ROOT")
    """Folder that holds the objects."""
    host: str = _env("127.0.0.1", "IOTA_STORE_HOST")
    """Address to listen on; 0.0.0.0 for the world."""
    port: Port = _env(8701, "IOTA_STORE_PORT")
    """Port to listen on; 0 picks a free one."""
    secret_file: HomePath | None = _env(None, "IOTA_STORE_SECRET_FILE")
    """File with the secret that signs URLs; made if it is not there."""


ROLES: tuple[type[ChainSettings], ...] = (
    ChainSettings,
    WalletSettings,
    NodeSettings,
    MinerSettings,
    ValidatorSettings,
    OrchestratorSettings,
    StoreSettings,
)


def environment_names(info: FieldInfo) -> tuple[str, ...]:
    """The variables that set a field, the one that wins first."""
    choices = info.validation_alias
    assert isinstance(choices, AliasChoices)
    return tuple(str(name) for name in choices.choices)


def known_names() -> set[str]:
    """Every variable that any role understands."""
    return {n for role in ROLES for info in role.model_fields.values() for n in environment_names(info)}


def check_names() -> None:
    """Refuse `IOTA_*` variables that mean nothing, in the environment and in `.env`.

    Raises:
        ValueError: naming the variable, where it stands and the nearest name there is; or a line of `.env`
            that sets nothing, where a default would take its place unnoticed.
    """
    known = known_names()
    for place, names in (("the environment", list(os.environ)), (ENV_FILE, _written_names())):
        for name in sorted(names):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
                raise ValueError(f"{place} sets {name}, which is no setting: did you mean {near[0]}?")


def _written_names() -> list[str]:
    if not Path(ENV_FILE).is_file():
        return []
    names = []
    with open(ENV_FILE, encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error or (binding.key is not None and binding.value is None):
                raise ValueError(f"line {binding.original.line} of {ENV_FILE} sets nothing: write NAME=value")
            if binding.key is not None:
                names.append(binding.key)
    return names


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment for a child that computes with `threads` threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # Two malloc arenas instead of eight a core: the rest would only hold freed tensors.
    calm = {"TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"}
    return {**os.environ, **dict.fromkeys(names, str(threads)), **calm}


def _sentence(role: type[ChainSettings], error: ValidationError) -> str:
    """The first thing wrong, in words, with the names by which it can be put right."""
    first = error.errors()[0]
    text = str(first["msg"]).removeprefix("Value error, ")
    location = str(first["loc"][0])
    for name, info in role.model_fields.items():
        names = environment_names(info)
        if location == name or location in names or location.upper() in names:
            value = first["input"]
            return f"--{name.replace('_', '-')} ({names[0]}) cannot be {value!r}: {text}"
    return text
