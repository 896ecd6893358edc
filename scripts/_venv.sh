# shellcheck shell=bash
# Sourced by the scripts beside it; the bash 3.2 that macOS ships is enough.

die() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# RESOLUTION=lowest-direct takes the lowest versions that pyproject.toml allows (uv's word for it),
# in a venv of their own; numpy 2.0 comes for Python 3.11, not for all later ones.
venv=.venv${RESOLUTION:+-$RESOLUTION}
pythons="python3.14 python3.13 python3.12 python3.11 python3"
suitable="Python 3.11 or later"
if [ -n "${RESOLUTION:-}" ]; then
    pythons=python3.11
    suitable="Python 3.11 (RESOLUTION=$RESOLUTION is set)"
fi

# setup "" or setup dev: $venv holds the package (editable), an MLX backend and, with `dev`, what
# the tests need. The stamp is the last thing written and the first removed: without it, we start
# afresh.
setup() {
    local extra=$1 backend=${MLX_BACKEND:-cpu} python=${PYTHON:-$venv/bin/python}
    local gigabytes=1 inputs kind stamp tool=pip
    if [ "$extra" = dev ]; then gigabytes=2; fi
    if runs uv --version; then
        tool=uv
    elif [ -n "${RESOLUTION:-}" ]; then
        tool="uv of pip"
    fi
    kind="$("$python" -V 2>/dev/null || true) $tool $backend"
    inputs=$({ pwd && grep '^__version__' mnist_kmeans_mlx/__init__.py && cat pyproject.toml; } | cksum)
    stamp=$(cat "$venv/.ready" 2>/dev/null || true)
    case $stamp in "$kind $inputs $extra" | "$kind $inputs dev") return ;; esac

    check_machine
    check_disk "$gigabytes"
    echo "setting up $venv, which takes a minute or so the first time" >&2
    case $stamp in
        "$kind "*) rm "$venv/.ready" ;;
        *) make_venv ;;
    esac
    add -e ".[$backend${extra:+,$extra}]" ||
        die "the dependencies could not be installed; the lines above say why."
    echo "$("$venv/bin/python" -V) $tool $backend $inputs $extra" >"$venv/.ready"
}

# A command on the PATH may be a shim with nothing behind it: what counts is that it runs.
runs() {
    "$@" </dev/null >/dev/null 2>&1
}

make_venv() {
    find_python
    if [ "$tool" != uv ] && ! runs "$python" -c 'import ensurepip'; then
        die "$python cannot make virtual environments: install python3-venv (on Debian and Ubuntu: sudo apt install python3-venv)."
    fi
    rm -f "$venv/.ready"
    rm -rf "$venv"
    if [ "$tool" = uv ]; then
        "$python" -m venv --without-pip "$venv"
    else
        "$python" -m venv "$venv"
    fi
}

add() {
    if [ -n "${RESOLUTION:-}" ]; then set -- --upgrade --resolution "$RESOLUTION" "$@"; fi
    case $tool in
        uv) uv pip install --quiet --python "$venv/bin/python" "$@" ;;
        pip) pip_install "$@" ;;
        "uv of pip")
            pip_install uv ||
                die "RESOLUTION=$RESOLUTION needs uv, which pip could not install; the lines above say why."
            as_pip_does "$venv/bin/python" -m uv pip install --quiet --python "$venv/bin/python" "$@"
            ;;
    esac
}

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# Where pip is told to take packages from another index than PyPI, uv takes them from there, too.
as_pip_does() {
    local index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}
    if [ -z "$index" ]; then
        index=$("$venv/bin/python" -m pip config list | sed -n "s/^[^=]*\.index-url='\(.*\)'$/\1/p" | tail -n 1)
    fi
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX=$index; fi
    "$@"
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suits "$PYTHON" || die "PYTHON=$PYTHON is not $suitable."
        python=$PYTHON
        return
    fi
    for python in $pythons; do
        if suits "$python"; then return; fi
    done
    # A Mac's own Python is 3.9, but uv can bring one.
    local managed=${RESOLUTION:+3.11}
    managed=${managed:-3.13}
    if [ "$tool" = uv ] && runs uv python install "$managed"; then
        python=$(uv python find --managed-python "$managed")
        if suits "$python"; then return; fi
    fi
    die "found no $suitable; install one, or name one that is not on the PATH with PYTHON=..."
}

if [ "$(uname -s)" = Darwin ]; then suitable="native (arm64) $suitable"; fi

suits() {
    runs "$1" -c '
import platform, sys
sys.exit(sys.version_info < (3, 11) or (sys.platform, platform.machine()) == ("darwin", "x86_64"))'
}

# Where MLX has wheels.
check_machine() {
    local release
    case "$(uname -s) $(uname -m)" in
        Darwin*)
            # uname says x86_64 also of Apple silicon, when the shell runs under Rosetta.
            [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ] ||
                die "MLX needs a Mac with Apple silicon (M1 or later), and this is an Intel Mac."
            release=$(sw_vers -productVersion)
            [ "${release%%.*}" -ge 14 ] || die "MLX needs macOS 14 or later, and this is $release."
            ;;
        "Linux x86_64" | "Linux aarch64")
            release=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
            release=${release#glibc 2.}
            [ "${release:-0}" -ge 35 ] ||
                die "MLX needs glibc 2.35 or later, as in Debian 12 or Ubuntu 22.04, and this Linux has none."
            ;;
        Linux*) die "on Linux MLX comes for x86_64 and aarch64, and this machine is $(uname -m)." ;;
        *) die "MLX comes for macOS and Linux, and this is $(uname -s)." ;;
    esac
}

check_disk() {
    local kilobytes
    # The column before the percentage: a mount's name may hold spaces.
    kilobytes=$(df -Pk . | awk 'END { for (i = 1; i < NF; i++) if ($(i + 1) ~ /^[0-9]+%$/) print $i }')
    [ "$kilobytes" -ge $(($1 * 1000 * 1000)) ] ||
        die "no room: setting up takes about $1 GB, and this disk has $((kilobytes / 1000)) MB left."
}
