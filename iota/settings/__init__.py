"""What an operator sets on one machine, and the flags that set it."""

from iota.settings.models import (
    PREFIX,
    ROLES,
    ChainSettings,
    LogLevel,
    MinerSettings,
    NodeSettings,
    OrchestratorSettings,
    Recompute,
    StoreSettings,
    ValidatorSettings,
    WalletSettings,
    check_names,
    child_environment,
    environment_names,
    known_names,
    parse_bytes,
)

__all__ = [
    "PREFIX",
    "ROLES",
    "ChainSettings",
    "LogLevel",
    "MinerSettings",
    "NodeSettings",
    "OrchestratorSettings",
    "Recompute",
    "StoreSettings",
    "ValidatorSettings",
    "WalletSettings",
    "check_names",
    "child_environment",
    "environment_names",
    "known_names",
    "parse_bytes",
]
