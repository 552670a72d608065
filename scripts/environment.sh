# Sourced by scripts/up, scripts/test and scripts/release: a virtual environment in the checkout, with pinned packages.
# It is made when there is none, and brought up to date when constraints.txt or pyproject.toml changed.
#
# IOTA_TORCH says which PyTorch it gets: cpu; cu130, cu126 or another of PyTorch's CUDA builds; cuda, the one of these
# that fits the machine; or system, what the machine's Python already has. Without it an environment keeps what it was
# made for, and a new one gets the CUDA build that fits where there is an NVIDIA GPU, else the CPU build.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.iota-installed" # what was installed: a checksum of the pins, then the build of PyTorch

say() { printf '%s\n' "$*" >&2; }

has_gpu() { [ -n "$(timeout 30 nvidia-smi -L 2>/dev/null | sed -n '/^GPU /p')" ]; }

shares_system() { grep -qs '^include-system-site-packages = true' "$venv/pyvenv.cfg"; }

fitting_build() {
    # CUDA 13 needs driver 580 and Turing (7.5); CUDA 12 needs driver 525, and its build has no Blackwell (10).
    # No line where none fits.
    timeout 30 nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null |
        LC_ALL=C awk -F ', *' '
            { driver = $1 + 0; if (NR == 1 || $2 + 0 < low) low = $2 + 0; if ($2 + 0 > high) high = $2 + 0 }
            END { if (driver >= 580 && low >= 7.5) print "cu130"; else if (driver >= 525 && high < 10) print "cu126" }
        ' || true
}

none_fits="no CUDA build fits this machine's NVIDIA driver and GPUs: update the driver, to 580 or newer"

build_of_the_gpu() {
    local build
    if ! has_gpu; then
        say "error: no NVIDIA GPU was found: nvidia-smi -L lists none. Install the driver; or, where there is a GPU that" \
            "nvidia-smi does not show, name the build: IOTA_TORCH=cu130"
        return 2
    fi
    build="$(fitting_build)"
    if [ -z "$build" ]; then
        say "error: $none_fits, or name a build: IOTA_TORCH=cu126"
        return 2
    fi
    printf '%s\n' "$build"
}

build_for_a_new_one() {
    local build=
    if has_gpu; then
        build="$(fitting_build)"
        if [ -n "$build" ]; then
            say "there is an NVIDIA GPU: PyTorch's build for it is $build; IOTA_TORCH=cpu takes another (docs/miner.md)"
        else
            say "$none_fits. Until then it is the CPU build; IOTA_TORCH takes another (docs/miner.md)"
        fi
    fi
    printf '%s\n' "${build:-cpu}"
}

made_for() {
    if shares_system; then
        printf 'system\n'
    elif [ -f "$stamp" ]; then
        sed -n 2p "$stamp"
    fi
}

chosen_build() {
    # Of IOTA_TORCH, the device that `iota up` is given (or nothing), and what the environment was made for.
    local wanted="${IOTA_TORCH:-}" device="$1" made="$2"
    case "$wanted" in
        "" | cpu | cuda | system | cu[1-9][0-9][0-9]) ;;
        *)
            say "error: IOTA_TORCH cannot be '$wanted': give cpu, cuda, cu130, cu126 or system"
            return 2
            ;;
    esac
    if [[ "$device" == cuda* ]]; then
        if [ "$wanted" = cpu ]; then
            say "error: --device $device needs a CUDA build, and IOTA_TORCH=cpu is none: leave one of them out"
            return 2
        fi
        if [ -z "$wanted" ] && { [ -z "$made" ] || [ "$made" = cpu ]; }; then
            wanted=cuda
        fi
    fi
    if [ "$wanted" = cuda ]; then
        build_of_the_gpu
    elif [ -n "$wanted$made" ]; then
        printf '%s\n' "${wanted:-$made}"
    else
        build_for_a_new_one
    fi
}

find_python() {
    local name usable="sys.version_info >= (3, 11)" missing
    missing="no Python 3.11 or newer with its venv module was found: install python3.11 and python3.11-venv"
    if [ "$1" = system ]; then
        usable="$usable and sys.prefix == sys.base_prefix and importlib.util.find_spec('torch')"
        missing="IOTA_TORCH=system: no Python 3.11 or newer has torch (one in a virtual environment does not count)"
    fi
    for name in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c "import importlib.util, sys, venv, ensurepip; sys.exit(not ($usable))" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    say "error: $missing"
    return 2
}

make_venv() {
    local python
    python="$(find_python "$1")" || return
    say "making a virtual environment in $venv with $python"
    if [ "$1" = system ]; then
        "$python" -m venv --system-site-packages "$venv"
    else
        "$python" -m venv "$venv"
    fi
}

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"; }

install() {
    # Only what pip has to say about a failure is of interest.
    local what="$1" log
    shift
    log="$(mktemp)"
    if ! pip_install "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "error: installing $what failed; the reason is above. Start the same command again to go on"
        return 1
    fi
    rm -f "$log"
}

install_torch() {
    local build="$1" what="PyTorch, the build $1" pins="$root/constraints.txt" torch
    local index="https://download.pytorch.org/whl/$1"
    torch="$(grep '^torch==' "$pins")"
    say "installing $what (the largest part; some minutes on a slow line) ..."
    # PyPI has no builds with names, but another source that pip is set up with, such as a mirror, may have.
    pip_install "$torch+$build" -c "$pins" >/dev/null 2>&1 && return
    if [ "$build" != cpu ]; then
        install "$what" "$torch+$build" -c "$pins" --extra-index-url "$index"
        return
    fi
    pip_install "$torch+$build" -c "$pins" --extra-index-url "$index" >/dev/null 2>&1 && return
    say "a build named cpu was not to be had from $index: PyPI's takes its place, on Linux a larger one with CUDA"
    install "$what" "$torch" -c "$pins"
}

pins_with_the_systems_torch() {
    local version needed pins="$venv/.iota-constraints"
    version="$("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null)" || {
        say "error: IOTA_TORCH=system: $venv/bin/python finds no torch. Remove $venv, and start again"
        return 2
    }
    needed="$(sed -n 's/^ *"torch\(>=[0-9.]*\)",$/\1/p' "$root/pyproject.toml")"
    "$venv/bin/python" -c 'import sys; from pip._vendor.packaging.specifiers import SpecifierSet
sys.exit(not SpecifierSet(sys.argv[1]).contains(sys.argv[2], prereleases=True))' "$needed" "$version" || {
        say "error: IOTA_TORCH=system: the torch that $venv/bin/python finds is $version, and torch$needed is needed"
        return 2
    }
    sed "s/^torch==.*/torch==$version/" "$root/constraints.txt" >"$pins"
    printf '%s\n' "$pins"
}

ensure_environment() {
    local made build wanted pins="$root/constraints.txt"
    made="$(made_for)"
    build="$(chosen_build "${1:-}" "$made")" || return
    wanted="$(cat "$root/constraints.txt" "$root/pyproject.toml" | cksum && printf '%s\n' "$build")"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ -x "$venv/bin/python" ] && [ "$build" != "${made:-$build}" ]; then
        if [ "$build" = system ] || [ "$made" = system ]; then
            say "error: $venv was made for IOTA_TORCH=$made, which cannot become $build: remove it (rm -r $venv), or set" \
                "IOTA_TORCH=$made"
            return 2
        fi
        say "$venv has PyTorch's build $made: it is replaced by $build"
        rm -f "$stamp"
    fi
    [ -x "$venv/bin/python" ] || make_venv "$build" || return
    # torch comes first and alone: it is most of the download, and is not fetched again if the rest fails.
    if [ "$build" = system ]; then
        pins="$(pins_with_the_systems_torch)" || return
    else
        install_torch "$build" || return
    fi
    say "installing IOTA and its other packages ..."
    install "IOTA and its other packages" -e "$root[dev]" -c "$pins" || return
    printf '%s\n' "$wanted" >"$stamp"
}
