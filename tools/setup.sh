# Sourced by ./demo and ./test: finds Python, makes .venv, installs what is missing, and says what it does.
#
# Touches: .venv/ (Python packages), .venv/setup.log (what the installers said), and, where root or password-less sudo is
# there, Debian packages by apt-get.  A second run finds its stamps and installs nothing.

export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
VENV=$PWD/.venv
LOG=$VENV/setup.log

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' GREEN='' RED='' YELLOW='' PLAIN=''
fi

say() { printf '%s==>%s %s\n' "$GREEN" "$PLAIN" "$*"; }
warn() { printf '%s==>%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }
fail() { printf '%s==> %s%s\n' "$RED" "$*" "$PLAIN" >&2; exit 1; }

# quietly COMMAND...: its output goes to the log, of which the end is shown when it fails.
quietly() {
    mkdir -p "$VENV"
    printf '\n$ %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null && return
    tail -n 25 "$LOG" >&2
    return 1
}

# The first Python from 3.11 on.
find_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; on Debian 12: apt-get install python3"
}

# How packages of the system may be installed: "" (root), "sudo -n", or "no".
apt_prefix() {
    if ! command -v apt-get >/dev/null; then echo no
    elif [ "$(id -u)" = 0 ]; then echo ''
    elif sudo -n true 2>/dev/null </dev/null; then echo 'sudo -n'
    else echo no
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# apt_install PACKAGE...: installs those that are missing; false where that cannot be done.
apt_install() {
    local missing prefix
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    prefix=$(apt_prefix)
    [ "$prefix" != no ] || return 1
    say "installing Debian packages: $missing"
    if [ -z "${APT_UPDATED:-}" ]; then
        quietly $prefix apt-get update -q || return 1
        APT_UPDATED=1
    fi
    # env: sudo forgets the variables of its caller.
    quietly $prefix env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o DPkg::Lock::Timeout=120 $missing
}

# make_venv PYTHON DIRECTORY: Debian splits ensurepip off, so `python3 -m venv` may need python3-venv first, or a pip of
# the system to put one into the new environment.
make_venv() {
    local python=$1 directory=$2
    if "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv; then
        quietly "$python" -m venv "$directory"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        quietly "$python" -m venv --without-pip "$directory" &&
            quietly "$python" -m pip --python "$directory/bin/python" install pip
    else
        fail "$python cannot make a virtual environment: apt-get install python3-venv, then again"
    fi
}

# stamp PYTHON WORD...: changes with the Python, what the project asks for, and how it is installed.
stamp() {
    local python=$1
    shift
    { "$python" -VV; echo "$PWD" "$@"; cat pyproject.toml tools/setup.sh tokens/{pyproject.toml,hatch_build.py,pk11_tokens/shim/*}; } |
        sha256sum | cut -d' ' -f1
}

# install_project EXTRAS: .venv with the project (editable) and its extras; for tests, the simulated tokens too, of which one
# file is compiled.
install_project() {
    local extras=$1 python stamp_file wanted projects
    projects=(-e ".[$extras]")
    [[ ,$extras, != *,test,* ]] || projects+=(-e ./tokens)
    if [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        python=$VENV/bin/python
    else
        python=$(find_python) || exit 1
        say "making .venv with $("$python" -V)"
        make_venv "$python" "$VENV" || fail "no virtual environment could be made; see above"
        python=$VENV/bin/python
    fi
    stamp_file=$VENV/.installed-${extras//,/-}
    wanted=$(stamp "$python" "$extras")
    if [ "$(cat "$stamp_file" 2>/dev/null)" != "$wanted" ]; then
        say "installing nss-pk11[$extras] into .venv"
        quietly "$python" -m pip install "${projects[@]}" || fail "pip could not install the project; see $LOG"
        echo "$wanted" >"$stamp_file"
    fi
    export PATH=$VENV/bin:$PATH
}
