"""A Hugging Face Hub that fails for a while, and one that refuses, under every command that asks it."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from iota.cli.main import main
from iota.console.command import INTERRUPTED
from iota.console.conditions import Condition
from iota.data import open_source, open_tokenizer
from iota.retry import Backoff
from tests.support.data_sets import prepare_made_up
from tests.support.hubs import Hub, serving_hub
from tests.support.llamas import save_llama
from tests.unit.test_data_tokenizers import train_bpe

ROWS = [json.dumps({"text": f"row {number} " + "word " * 20}).encode() + b"\n" for number in range(2500)]
UNRETRIED = 520
"""A proxy's "unknown error". The Hub's library tries others of 5xx again, for 23 s."""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    made = tmp_path_factory.mktemp("models")
    save_llama(made / "llama")
    return {"models/owner/llama": files(made / "llama"), "models/owner/bpe": files(train_bpe(made / "bpe"))}


@pytest.fixture
def hub(models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with serving_hub() as serving:
        halves = {"train-0.jsonl": b"".join(ROWS[:1500]), "train-1.jsonl": b"".join(ROWS[1500:])}
        serving.repositories = {"datasets/owner/set": halves, **models}
        yield serving


@pytest.fixture
def here(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The Hub of this process, which asks again at once."""
    template = "{endpoint}/{repo_id}/resolve/{revision}/{filename}".replace("{endpoint}", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(Condition.HUB, "backoff", Backoff(first_s=0.01, max_s=0.05))
    return hub


def run(hub: Hub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "iota.cli.main", *map(str, arguments)],
        env={**os.environ, **hub.environment(home)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def assert_waited(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    for part in (f"{Condition.HUB.text} (", "next try in ", "then exit code 1", "it goes on after "):
        assert part in done.stderr


def test_a_preparation_outlasts_a_hub_that_answers_500(hub: Hub, tmp_path: Path) -> None:
    hub.faults, hub.failing = [500, 429], "/api/datasets/owner/set"
    done = run(hub, tmp_path, "data", "prepare", "hf:owner/set", "--out", tmp_path / "data")
    assert_waited(done)
    assert "hf:owner/set: " in done.stderr


def test_a_spec_from_weights_on_the_hub_outlasts_one_that_answers_500(hub: Hub, tmp_path: Path) -> None:
    prepare_made_up(tmp_path / "data")
    hub.faults, hub.failing = [500, 502], "/api/models/owner/llama"
    flags = ("--data", tmp_path / "data", "--init", "owner/llama", "--stages", 2, "--sequence-length", 64)
    assert_waited(run(hub, tmp_path, "spec", "--out", tmp_path / "spec.json", *flags))
    assert '"owner/llama@aaaa' in (tmp_path / "spec.json").read_text().replace(": ", ":")


def test_ctrl_c_ends_a_swarm_that_waits_for_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [500] * 1000
    command = ["up", "--data", "hf:owner/set", "--run-dir", tmp_path / "run", "--model", "tiny"]
    with subprocess.Popen(
        [sys.executable, "-m", "iota.cli.main", *map(str, command)],
        env={**os.environ, **hub.environment(tmp_path)}, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(Condition.HUB.text in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == INTERRUPTED


def test_reading_goes_on_at_the_row_where_the_hub_failed(here: Hub, caplog: pytest.LogCaptureFixture) -> None:
    here.faults, here.failing = [UNRETRIED, UNRETRIED], "train-1.jsonl"
    found = [d.text for d in open_source("hf:owner/set").read(None, Counter())]
    assert found == [json.loads(row)["text"] for row in ROWS]
    assert not here.faults
    assert "it goes on after" in caplog.text


def test_a_hub_that_fails_while_a_data_set_is_opened_is_waited_for(here: Hub) -> None:
    """`datasets` says of it that there is no such data set."""
    here.faults, here.failing = [UNRETRIED], "/README.md"
    assert next(iter(open_source("hf:owner/set").read(None, Counter()))).text.startswith("row 0 ")
    assert not here.faults


@pytest.mark.parametrize("failing", ["/api/models/owner/bpe", "/tokenizer_config.json"])
def test_a_tokenizer_is_whole_although_the_hub_failed(
    here: Hub, failing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`transformers` leaves out a file that the Hub fails to give."""
    here.faults, here.failing = [UNRETRIED] * 3, failing
    found = open_tokenizer("owner/bpe")
    assert not here.faults
    assert Condition.HUB.text in caplog.text
    assert (found.name, found.digest) == ("owner/bpe", open_tokenizer(str(train_bpe(tmp_path / "b"))).digest)


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code, capsys.readouterr().err


COMMANDS = {
    "data set": ("data", "prepare", "hf:owner/{}"),
    "revision": ("data", "prepare", "hf:owner/set@{}"),
    "tokenizer": ("data", "prepare", "stdlib", "--tokenizer", "owner/{}"),
    "weights": ("spec", "--template", "--init", "owner/{}"),
}


def arguments(command: str, name: str, folder: Path) -> list[object]:
    out = [] if command == "weights" else ["--out", folder / "out"]
    return [*(part.format(name) for part in COMMANDS[command]), *out]


@pytest.mark.parametrize("status", [404, 401, 403])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_the_hub_refuses_is_the_users_mistake(
    command: str, status: int, here: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    here.faults, here.failing = [status] * 9, "nothing"
    code, said = in_process(capsys, *arguments(command, "nothing", tmp_path))
    assert code == 2
    assert "nothing" in said
    assert ": check the name" in said or ": give 'bytes'" in said
    assert Condition.HUB.text not in caplog.text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_that_the_user_has_switched_off_is_not_waited_for(
    command: str, here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, said = in_process(capsys, *arguments(command, "set", tmp_path))
    assert (code, here.asked) == (2, [])
    assert "HF_HUB_OFFLINE" in said
    assert Condition.HUB.text not in caplog.text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_that_stays_away_until_the_end_is_exit_code_1_with_what_to_do(
    command: str, here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(Condition.HUB, "end_s", 0.2)
    caplog.set_level(logging.WARNING)
    code, said = in_process(capsys, *arguments(command, "set", tmp_path))
    assert code == 1
    assert Condition.HUB.remedy in said
    assert Condition.HUB.text in caplog.text
