# Sourced by scripts/up and scripts/test: a virtual environment in the checkout, with pinned packages.
# It is made when there is none, and brought up to date when constraints.txt or pyproject.toml changed.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3 python; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    say "error: no Python 3.11 or newer with its venv module was found: install python3.11 and python3.11-venv"
    return 2
}

install() {
    # Only what pip has to say about a failure is of interest.
    local what="$1" log
    shift
    log="$(mktemp)"
    say "installing $what ..."
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@" >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "error: installing $what failed; the reason is above. Start the same command again to go on"
        return 1
    fi
    rm -f "$log"
}

ensure_environment() {
    local stamp="$venv/.iota-installed" wanted python torch
    wanted="$(cat "$root/constraints.txt" "$root/pyproject.toml" | cksum)"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    if [ ! -x "$venv/bin/python" ]; then
        python="$(find_python)" || return
        say "making a virtual environment in $venv with $python"
        "$python" -m venv "$venv"
    fi
    # torch comes first and alone: it is most of the download, and is not fetched again if the rest fails.
    torch="$(grep '^torch==' "$root/constraints.txt")"
    install "PyTorch (the largest part; some minutes on a slow line)" "$torch" -c "$root/constraints.txt" || return
    install "IOTA and its other packages" -e "$root[dev]" -c "$root/constraints.txt" || return
    printf '%s\n' "$wanted" >"$stamp"
}
