"""Which PyTorch `scripts/environment.sh` installs, with a driver, Pythons and a pip that are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from iota.doctor.machine import torch_has_cuda

ROOT = Path(__file__).parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3", "python")
_PYTHON = """#!/bin/bash
here="$(dirname "$0")"
case "$1 $2" in
    "-m venv")
        kind=false
        [ "$3" != --system-site-packages ] || kind=true
        mkdir -p "${!#}/bin"
        cp "$0" "${!#}/bin/python"
        echo "include-system-site-packages = $kind" >"${!#}/pyvenv.cfg" ;;
    "-m pip")
        echo "$*" >>"$PIP_LOG"
        [[ -z "$PIP_LACKS" || "$*" != *+$PIP_LACKS* ]] || { echo "no such build"; exit 1; }
        [[ "$*" != *torch==*+* || -n "$MIRROR" || "$*" == *--extra-index-url* ]] || exit 1
        [[ "$*" != *" -e "* ]] || { cp "$STARTED" "$here/iota" && chmod +x "$here/iota"; } ;;
    *packaging*) [[ "$3 $4" != ">=2.13 2.12"* ]] ;;
    *metadata*) [ -n "$SYSTEM_TORCH" ] && echo "$SYSTEM_TORCH" ;;
    *find_spec*torch*) [ -n "$SYSTEM_TORCH" ] ;;
esac
"""
_NVIDIA_SMI = """#!/bin/bash
[ -n "$GPUS" ] || { echo "No devices were found"; exit 6; }
if [ "$1" = -L ]; then echo "$GPUS" | sed 's/.*/GPU 0: a card (UUID: GPU-1)/'; else echo "$GPUS"; fi
"""
H100, P100, B200 = "580.65.06, 9.0", "580.65.06, 6.0", "570.10, 10.0"
INDEX = "https://download.pytorch.org/whl"


class Checkout:
    """A folder with the scripts, on a machine that is made of variables."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._bin = folder, folder / "bin"
        for place in (self._bin, folder / "scripts"):
            place.mkdir()
        for name in ("up", "environment.sh"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts")
        (folder / "constraints.txt").write_text("numpy==2.4.0\ntorch==2.13.0\n")
        (folder / "pyproject.toml").write_text('dependencies = [\n    "torch>=2.13",\n]\n')
        for name in (*PYTHONS, "nvidia-smi"):
            (self._bin / name).write_text(_NVIDIA_SMI if name == "nvidia-smi" else _PYTHON)
            (self._bin / name).chmod(0o755)
        (folder / "started").write_text('#!/bin/sh\necho started "$@"\n')
        self.log = folder / "pip.log"

    def up(self, *flags: str, **machine: str) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and the words of pip's calls: of torch and of the rest."""
        self.log.write_text("")
        plain = dict.fromkeys(("GPUS", "SYSTEM_TORCH", "MIRROR", "PIP_LACKS", "IOTA_TORCH"), "")
        path = {"PATH": f"{self._bin}:{os.environ['PATH']}", "PIP_LOG": str(self.log)}
        path["STARTED"] = str(self.folder / "started")
        command = [str(self.folder / "scripts" / "up"), *flags]
        done = subprocess.run(
            command, env={**path, **plain, **machine}, capture_output=True, text=True, check=False
        )
        assert (done.stdout == f"started up {' '.join(flags)}".rstrip() + "\n") is (done.returncode == 0)
        return done.returncode, done.stderr, self.log.read_text().splitlines()

    def torch(self, *flags: str, **machine: str) -> str:
        """The build that was asked for at last; nothing if pip was not called."""
        code, said, calls = self.up(*flags, **machine)
        assert code == 0, said
        builds = [word.partition("+")[2] for call in calls for word in call.split() if "torch==" in word]
        return builds[-1] if builds else ""

    def refusal(self, *flags: str, **machine: str) -> str:
        """What is said by a start that ends as for a mistake in the settings, before pip was called."""
        code, said, calls = self.up(*flags, **machine)
        assert (code, calls) == (2, [])
        return said


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize(
    ("gpus", "build"),
    [
        ("", "cpu"),
        (H100, "cu130"),
        (f"{P100}\n{H100}", "cu126"),
        ("550.54.15, 8.0", "cu126"),
        (B200, "cpu"),
        ("470.1, 8.0", "cpu"),
        ('Field "compute_cap" is not a valid field to query.', "cpu"),
    ],
)
def test_a_new_environment_gets_the_build_for_its_machine(checkout: Checkout, gpus: str, build: str) -> None:
    assert checkout.torch(GPUS=gpus) == build


def test_the_choice_for_a_gpu_is_said_with_how_to_choose_another(checkout: Checkout) -> None:
    _, said, _ = checkout.up(GPUS=H100)
    assert "PyTorch's build for it is cu130; IOTA_TORCH=cpu takes another" in said


def test_a_driver_that_no_build_fits_is_said(checkout: Checkout) -> None:
    _, said, _ = checkout.up(GPUS=B200)
    assert "update the driver, to 580 or newer. Until then it is the CPU build" in said


@pytest.mark.parametrize(
    ("wanted", "build"), [("cpu", "cpu"), ("cu126", "cu126"), ("cu132", "cu132"), ("cuda", "cu130")]
)
def test_iota_torch_chooses(checkout: Checkout, wanted: str, build: str) -> None:
    assert checkout.torch(GPUS=H100, IOTA_TORCH=wanted) == build


def test_an_unknown_choice_is_refused(checkout: Checkout) -> None:
    assert checkout.refusal(IOTA_TORCH="CUDA13") == (
        "error: IOTA_TORCH cannot be 'CUDA13': give cpu, cuda, cu130, cu126 or system\n"
    )


def test_pytorchs_own_index_is_asked_for_a_build_that_pips_sources_lack(checkout: Checkout) -> None:
    _, _, (first, second, rest) = checkout.up(IOTA_TORCH="cu130")
    assert "--extra-index-url" not in first
    assert second.endswith(f"--extra-index-url {INDEX}/cu130")
    assert "-e" in rest.split()
    assert INDEX not in rest


def test_a_mirror_that_has_the_build_is_enough(checkout: Checkout) -> None:
    _, _, calls = checkout.up(IOTA_TORCH="cu130", MIRROR="1")
    assert len(calls) == 2
    assert INDEX not in "".join(calls)


def test_without_pytorchs_index_a_machine_without_a_gpu_gets_pypis_build_and_is_told(
    checkout: Checkout,
) -> None:
    code, said, calls = checkout.up(PIP_LACKS="cpu")
    assert code == 0
    assert "a build named cpu was not to be had from https://" in said
    assert [word for call in calls for word in call.split() if "torch==" in word] == [
        "torch==2.13.0+cpu",
        "torch==2.13.0+cpu",
        "torch==2.13.0",
    ]


def test_what_pip_says_of_a_failure_is_shown(checkout: Checkout) -> None:
    code, said, _ = checkout.up(IOTA_TORCH="cu999", PIP_LACKS="cu999")
    assert code == 1
    assert "no such build\nerror: installing PyTorch, the build cu999 failed" in said


def test_an_environment_keeps_its_build_where_nothing_else_is_asked(checkout: Checkout) -> None:
    assert checkout.torch(IOTA_TORCH="cu126") == "cu126"
    assert checkout.torch(GPUS=H100) == ""
    (checkout.folder / "constraints.txt").write_text("torch==2.13.1\n")
    assert checkout.torch(GPUS=H100) == "cu126"


def test_another_build_replaces_the_one_that_is_there(checkout: Checkout) -> None:
    assert checkout.torch() == "cpu"
    code, said, _ = checkout.up(IOTA_TORCH="cu130", PIP_LACKS="cu130")
    assert code == 1
    assert "has PyTorch's build cpu: it is replaced by cu130" in said
    assert checkout.torch(IOTA_TORCH="cu130") == "cu130", "what failed is tried again"
    assert checkout.torch(IOTA_TORCH="cu130") == ""


@pytest.mark.parametrize("flags", [("--device", "cuda"), ("--device=cuda:1",)])
def test_up_on_cuda_implies_the_build_that_fits(checkout: Checkout, flags: tuple[str, ...]) -> None:
    assert checkout.torch() == "cpu", "an environment from before the driver was there"
    assert checkout.torch(*flags, GPUS="550.54.15, 8.0") == "cu126"
    assert checkout.torch(*flags, GPUS=H100) == "", "a CUDA build stays"


def test_up_on_another_device_implies_nothing(checkout: Checkout) -> None:
    assert checkout.torch("--device", "cpu", "--model", "cuda") == "cpu"


def test_up_on_cuda_is_refused_early_without_a_gpu(checkout: Checkout) -> None:
    said = checkout.refusal("--device", "cuda")
    assert said.startswith("error: no NVIDIA GPU was found: nvidia-smi -L lists none.")
    assert checkout.torch("--device", "cuda", IOTA_TORCH="cu130") == "cu130", (
        "a build by name needs no nvidia-smi"
    )


def test_up_on_cuda_is_refused_early_with_a_driver_that_is_too_old(checkout: Checkout) -> None:
    assert checkout.refusal("--device", "cuda", GPUS="470.1, 8.0").startswith("error: no CUDA build fits")


def test_up_on_cuda_and_the_cpu_build_contradict_each_other(checkout: Checkout) -> None:
    said = checkout.refusal("--device", "cuda", IOTA_TORCH="cpu", GPUS=H100)
    assert (
        said == "error: --device cuda needs a CUDA build, and IOTA_TORCH=cpu is none: leave one of them out\n"
    )


def test_the_systems_torch_is_shared_and_pinned_as_it_is(checkout: Checkout) -> None:
    assert checkout.torch("--device", "cuda", IOTA_TORCH="system", SYSTEM_TORCH="2.14.0a0+nv") == ""
    call = checkout.log.read_text()
    pins = Path(call.split("-c ")[1].strip())
    assert pins.read_text() == "numpy==2.4.0\ntorch==2.14.0a0+nv\n"
    assert checkout.torch(GPUS=H100) == "", "it is kept"
    assert checkout.log.read_text() == ""


def test_a_system_without_torch_is_refused(checkout: Checkout) -> None:
    assert "no Python 3.11 or newer has torch" in checkout.refusal(IOTA_TORCH="system")


def test_a_torch_of_the_system_that_is_too_old_is_refused(checkout: Checkout) -> None:
    said = checkout.refusal(IOTA_TORCH="system", SYSTEM_TORCH="2.12.1")
    assert said.endswith("finds is 2.12.1, and torch>=2.13 is needed\n")


@pytest.mark.parametrize(("made", "wanted"), [("system", "cpu"), ("cpu", "system")])
def test_an_environment_that_shares_torch_and_one_that_does_not_cannot_become_each_other(
    checkout: Checkout, made: str, wanted: str
) -> None:
    checkout.up(IOTA_TORCH=made, SYSTEM_TORCH="2.13.0")
    said = checkout.refusal(IOTA_TORCH=wanted, SYSTEM_TORCH="2.13.0")
    assert f"was made for IOTA_TORCH={made}, which cannot become {wanted}: remove it (rm -r " in said


def test_the_doctor_reads_of_torch_what_torch_says_of_itself() -> None:
    assert torch_has_cuda() is (torch.version.cuda is not None)
