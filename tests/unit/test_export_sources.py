"""`iota export` of a run by URL alone, by journal and store, and by folder."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from blake3 import blake3

from iota.cli.main import main
from iota.data import open_tokenizer
from iota.data.exported_tokenizer import write_tokenizer
from iota.data.manifest import DataError
from iota.exporting import Exporter, FolderObjects, RecordedFacts, Target
from iota.model.export import exported_name
from iota.model.initial import initial_weights
from iota.objects import BaseKey, tokenizer_key
from iota.protocol.frames import StoredObject
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from iota.store import EmbeddedStore
from iota.store.embedded_server import make_app
from tests.support.orchestrators import Running, orchestrator, raw
from tests.support.store_servers import SECRET, moto_s3, serving
from tests.support.stored_runs import StoredRun, served, store_run
from tests.unit.test_data_tokenizers import train_bpe


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return store_run(tmp_path / "run")


def export(*arguments: object) -> int:
    """The exit code of `iota export`."""
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, arguments)])
    return int(ended.value.code or 0)


async def exported(*arguments: object) -> int:
    return await asyncio.to_thread(export, *arguments)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def assert_trained(run: StoredRun, folder: Path) -> None:
    expected = {exported_name(run.spec, n): w for s in run.states for n, w in s.weights.items()}
    found = weights(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    return path


async def test_a_stranger_exports_a_going_run_with_its_url_alone(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    async with served(run) as (running, _):
        assert await exported("--orchestrator", running.url, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "run"]


async def test_a_stopped_run_is_exported_from_its_journal_and_store(run: StoredRun, tmp_path: Path) -> None:
    journal = run.write_journal()
    before = journal.read_bytes()
    async with serving(make_app(run.store, SECRET, now=time.time)) as url:
        source = ["--journal", journal, "--store", url, "--store-secret-file", secret_file(tmp_path)]
        assert await exported(*source, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")
    assert journal.read_bytes() == before


async def test_a_journal_is_read_while_its_orchestrator_writes_to_it(run: StoredRun, tmp_path: Path) -> None:
    journal = run.write_journal()
    async with served(run) as (_, url):
        source = ["--journal", journal, "--store", url, "--store-secret-file", secret_file(tmp_path)]
        assert await exported(*source, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")


def test_a_run_in_s3_is_exported_from_its_journal(run: StoredRun, tmp_path: Path) -> None:
    import boto3

    journal = run.write_journal()
    with moto_s3("models") as url:
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        for path in (p for p in run.store.rglob("*") if p.is_file() and not p.name.startswith(".")):
            client.upload_file(str(path), "models", f"runs/{path.relative_to(run.store)}")
        store = f"s3://models/runs?endpoint={url}&region=us-east-1"
        assert export("--journal", journal, "--store", store, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")


def test_the_folder_of_an_up_is_exported_without_a_copy_of_its_parts(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")
    modes = {
        (tmp_path / "model" / name).stat().st_mode & 0o777 for name in ("model.safetensors", "config.json")
    }
    umask = os.umask(0o022)
    os.umask(umask)
    assert modes == {0o666 & ~umask}


def test_an_export_says_what_it_does_all_the_time(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--to", tmp_path / "model", "--heldout-tokens", 64) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("export: ")]
    assert "reading the journal" in lines[0]
    of, done = run.spec.layout.stages, iter(lines[1:])
    for stage in range(of):
        for what in (
            f"{stage} of {of}: reading 0 MB",
            f"{stage} of {of}: checking",
            f"{stage}: held-out loss",
        ):
            assert what in next(done)
    assert list(done) == []


def test_parts_are_joined_by_number_beyond_a_thousand(tmp_path: Path) -> None:
    run = store_run(tmp_path / "run", outer={"eta": 0.7, "momentum": 0.0, "part_elements": 16})
    stored = run.records[0].parts
    assert len(stored) > 1001
    assert sorted(stored, key=lambda part: part.key) != list(stored)
    bases = {
        (1, stage): BaseRecord(
            epoch=1, stage=stage, digest=record.digest, parts=tuple(sorted(record.parts, key=str))
        )
        for stage, record in enumerate(run.records)
    }
    with asyncio.Runner() as runner:
        facts, objects = RecordedFacts(run.spec, bases, {"heldout": {}}), FolderObjects(run.store)
        Exporter(facts, objects, Target(tmp_path / "model"), runner, lambda *_: None).run()
    assert_trained(run, tmp_path / "model")


def test_untrained_weights_are_exported_only_where_they_are_asked_for(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write_journal(merged=False)
    assert export("--run-dir", run.root, "--to", tmp_path / "model") == 2
    assert "no merged weights yet" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_the_initial_weights_need_no_stored_base(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    assert export("--run-dir", run.root, "--epoch", 0, "--to", tmp_path / "model") == 0
    start = initial_weights(run.spec, 0)
    found = weights(tmp_path / "model")
    assert all(torch.equal(found[exported_name(run.spec, name)], w) for name, w in start.items())


async def test_an_epoch_that_is_not_stored_is_refused_with_those_that_are(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write_journal()
    async with served(run) as (running, _):
        assert await exported("--orchestrator", running.url, "--epoch", 7, "--to", tmp_path / "model") == 2
        assert "epoch 7 is not stored; there are: 0, 1" in capsys.readouterr().err
        assert await exported("--orchestrator", running.url, "--epoch", 1, "--to", tmp_path / "model") == 0


async def test_a_part_with_other_bytes_is_refused_and_nothing_is_left(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write_journal()
    path = run.store / run.records[1].parts[0].key
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    async with served(run) as (running, _):
        assert await exported("--orchestrator", running.url, "--to", tmp_path / "model") == 2
    assert "other bytes than were announced" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_a_base_that_its_replicas_did_not_agree_on_is_refused(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The miner that stored the base announced the digests of the parts; the replicas agreed on another."""
    part = run.records[1].parts[-1]
    data = bytearray((run.store / part.key).read_bytes())
    data[-1] ^= 1  # the momentum or the weights of the last element: still finite
    (run.store / part.key).write_bytes(data)
    changed = StoredObject(key=part.key, digest=blake3(bytes(data)).hexdigest(), size=len(data))
    run.records[1] = run.records[1].model_copy(update={"parts": (*run.records[1].parts[:-1], changed)})
    run.write_journal()
    assert export("--run-dir", run.root, "--to", tmp_path / "model") == 2
    assert "not the one that its replicas agreed on" in capsys.readouterr().err


async def test_what_was_downloaded_is_not_fetched_again(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    hidden = run.store / run.records[1].parts[-1].key
    hidden.rename(tmp_path / "hidden")
    async with served(run) as (running, _):
        assert await exported("--orchestrator", running.url, "--to", tmp_path / "model") == 2
        (tmp_path / "hidden").rename(hidden)
        for part in run.records[0].parts:
            (run.store / part.key).unlink()
        assert await exported("--orchestrator", running.url, "--to", tmp_path / "model") == 0
    assert_trained(run, tmp_path / "model")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "run"]


async def test_ctrl_c_leaves_no_model(run: StoredRun, tmp_path: Path) -> None:
    run.write_journal()
    asked = asyncio.Event()
    never = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"\r\nRange:" not in await reader.readuntil(b"\r\n\r\n"):  # the orchestrator asks for sizes
            asked.set()
        await never.wait()

    async with served(run) as (running, _):
        stuck = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = stuck.sockets[0].getsockname()[1]
        store = EmbeddedStore(f"http://127.0.0.1:{port}", SECRET)
        async with orchestrator(
            tmp_path / "other.db",
            run.spec,
            store=store,
            manifest=(run.store / f"data/{run.spec.data.manifest}/manifest.json").read_bytes(),
        ) as other:
            for base in running.coordinator.state.bases.stored.values():
                other.coordinator.state.bases.store(base, run.spec.layout.stages)
            command = [sys.executable, "-m", "iota.cli.main", "export", "--orchestrator", other.url]
            process = await asyncio.create_subprocess_exec(
                *command, "--to", str(tmp_path / "model"), stderr=subprocess.PIPE
            )
            async with asyncio.timeout(200):
                await asked.wait()
                process.send_signal(signal.SIGINT)
                _, said = await process.communicate()
        await store.close()
        never.set()
        stuck.close()
    assert process.returncode == 130, said
    assert said.decode().splitlines()[-1] == "interrupted"
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.glob(".model.*.part"))


@pytest.mark.parametrize(
    "arguments",
    [["--run-dir", "x", "--orchestrator", "http://127.0.0.1:1"], ["--run-dir", "x", "--store", "y"]],
)
def test_two_sources_are_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(*arguments, "--to", tmp_path / "model") == 2
    assert "give one of" in capsys.readouterr().err


# ---- the tokenizer --------------------------------------------------------------------------------


async def test_the_tokenizer_comes_from_the_store_and_another_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    trained = open_tokenizer(str(train_bpe(tmp_path / "bpe", bos=True)))
    run = store_run(tmp_path / "run", trained)
    run.write_journal()
    async with served(run) as (running, _):
        source = ["--orchestrator", running.url]
        assert await exported(*source, "--tokenizer", "bytes", "--to", tmp_path / "other") == 2
        assert "is not the tokenizer of this run" in capsys.readouterr().err
        assert await exported(*source, "--to", tmp_path / "model") == 0
        stored = run.store / tokenizer_key(run.spec.data.manifest)
        stored.write_bytes(stored.read_bytes() + b" ")
        assert await exported(*source, "--to", tmp_path / "other") == 2
        assert "the stored tokenizer is not the run's" in capsys.readouterr().err
        stored.unlink()
        assert await exported(*source, "--to", tmp_path / "other") == 2
        assert "give it with --tokenizer" in capsys.readouterr().err
        assert await exported(*source, "--tokenizer", tmp_path / "bpe", "--to", tmp_path / "other") == 0
    for folder in ("model", "other"):
        found = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert found("the cat <s>")["input_ids"] == trained.encode("the cat <s>").tolist()


# ---- the public calls -----------------------------------------------------------------------------


async def answered(running: Running, path: str) -> tuple[int, dict[str, Any]]:
    status, document, _ = await raw(running, path, b"", method="GET")
    return status, document


async def test_only_parts_of_stored_bases_and_the_tokenizer_are_public(run: StoredRun) -> None:
    run.write_journal()
    spec: RunSpec = run.spec
    async with served(run) as (running, _):
        assert await answered(running, "/v1/bases") == (200, {"epochs": [1]})
        status, record = await answered(running, "/v1/bases/1/0")
        assert (status, record["digest"]) == (200, run.records[0].digest)
        for path in ("/v1/bases/0/0", "/v1/bases/1/9", "/v1/bases/x/0", "/v1/bases/1/99999999999"):
            assert (await answered(running, path))[0] == 404
        part = run.records[0].parts[0].key
        status, reply = await answered(running, f"/v1/objects?key={part}")
        assert (status, "op=get" in reply["url"]) == (200, True)
        assert (await answered(running, f"/v1/objects?key={part}"))[1] == reply  # it is kept
        assert (await answered(running, f"/v1/objects?key={tokenizer_key(spec.data.manifest)}"))[0] == 200
        missing = BaseKey(spec.id, 1, 0, 999)
        assert (await answered(running, f"/v1/objects?key={missing}"))[0] == 404
        for key in (
            "",
            "../x",
            f"data/{spec.data.manifest}/shard-00000.bin",
            f"{spec.id}/merged/0/0/part-000.x",
        ):
            assert (await answered(running, f"/v1/objects?key={key}"))[0] == 403


def test_an_eos_beyond_any_vocabulary_is_refused(tmp_path: Path) -> None:
    _, _, definition = open_tokenizer(str(train_bpe(tmp_path / "bpe"))).definition.partition(b"\n")
    with pytest.raises(DataError):
        write_tokenizer(b"9999999999\n" + definition, tmp_path / "made")
