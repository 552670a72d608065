"""Logs at the most talkative level hold no key, no secret and no URL that lets anybody read or write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.live_swarm import LiveSwarm, tiny

SIGNED_URL = re.compile(r"[?&](sig|X-Amz-Signature|X-Amz-Credential)=", re.IGNORECASE)


async def test_the_logs_of_a_whole_swarm_hold_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_LOG_LEVEL", "DEBUG")
    async with LiveSwarm(tmp_path / "run", tiny(), validator=True) as swarm:
        await swarm.finished(120)
        await swarm.validator_done(120)
        secrets = swarm_secrets(swarm)
    assert_none_told(logs_of(swarm), secrets)


def logs_of(swarm: LiveSwarm) -> dict[str, str]:
    logs = {path.name: path.read_text() for path in swarm.run_dir.root.rglob("*.log")}
    assert {"miner-00.log", "validator.log", "orchestrator.log", "store.log"} <= logs.keys()
    assert any("DEBUG" in text for text in logs.values())
    return logs


def assert_none_told(texts: dict[str, str], secrets: dict[str, str]) -> None:
    for place, text in texts.items():
        assert SIGNED_URL.search(text) is None, place
        for name, secret in secrets.items():
            assert secret not in text, f"{name} in {place}"


def swarm_secrets(swarm: LiveSwarm) -> dict[str, str]:
    """Everything that must stay in its file: the store's secret, keys, seeds of the audits' draws."""
    found = {"the store's secret": swarm.run_dir.secret.read_text().strip()}
    for path in swarm.run_dir.wallets.rglob("hotkeys/*"):
        if path.suffix != ".txt":
            key = json.loads(path.read_text())
            secret = [part for part in key if part.startswith(("secret", "private"))]
            found |= {f"{path.name} {part}": key[part] for part in secret}
    for path in swarm.run_dir.root.rglob("links.seed"):
        found[f"{path.parent.name} seed"] = path.read_bytes().hex()
    assert len(found) > 10
    return found
