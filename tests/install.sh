#!/usr/bin/env bash
# Installs what a target of the Makefile needs, and does nothing where it is there already.
#
#   tests/install.sh demo    the package and its demo, into .venv
#   tests/install.sh test    that, the tools of tests and linters, and the programs that tests drive
#   tests/install.sh bench   the package, a C compiler, and the contestants; those that take long to install
#                            (litellm, resumable-stream) only where a further argument names them
#
# PYTHON names the interpreter that .venv is made with. A program that cannot be had is told in a frame; the
# tests that need it are then left out, and tests/left_out.py repeats that at the end of their output.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
versions=tests/constraints.txt

main() {
    case "${1-}" in
        demo) package openai ;;
        test)
            package openai,test
            program "browser tests" chromium chromium chromium-browser google-chrome
            program "the demo's lines" curl curl
            compiler "tests of the benchmark"
            proxies "tests of the benchmark"
            ;;
        bench)
            package openai
            compiler "the benchmark"
            proxies "the benchmark's contestants"
            case "$*" in *litellm*) litellm ;; esac
            case "$*" in *resumable-stream*) resumable_stream ;; esac
            ;;
        *)
            echo "usage: tests/install.sh demo|test|bench [CONTESTANT…]" >&2
            exit 2
            ;;
    esac
}

# package EXTRAS: this package, editable, with these extras; again when what it depends on has changed.
package() {
    local stamp python="${PYTHON:-python3}"
    for stamp in "$venv/.installed-$1"*; do  # more extras will do as well
        if [[ "$stamp" -nt pyproject.toml && "$stamp" -nt $versions ]]; then return; fi
    done
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$python is not Python 3.11 or newer; name one that is: make PYTHON=python3.13 …" >&2
        exit 1
    fi
    # A venv that failed half-way (Debian without python3-venv) has a python and no pip.
    [[ -x "$venv/bin/pip" ]] || "$python" -m venv --clear "$venv"
    echo "Installing .[$1] into $venv, which can take some minutes …"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint $versions --editable ".[$1]"
    touch "$venv/.installed-$1"
}

# program WHAT PACKAGE NAME…: one of these programs on PATH, or Debian's package, or word of what is left out.
program() {
    local what="$1" package="$2"
    shift 2
    local name
    for name in "$@"; do
        if command -v "$name" >/dev/null; then return; fi
    done
    if can_install && apt_install "$package"; then return; fi
    frame "LEFT OUT: $what: there is no $1 on PATH, and it could not be installed here."
}

# compiler WHAT: a C compiler, make, and OpenSSL's headers and its command, for bench/native.
compiler() {
    program "$1" gcc cc
    program "$1" make make
    program "$1" openssl openssl
    if can_include stdio.h openssl/ssl.h; then return; fi
    if can_install && apt_install libc6-dev libssl-dev; then return; fi
    frame "LEFT OUT: $1: there are no headers of C or OpenSSL (libssl-dev), and they could not be installed here."
}

can_include() {
    printf '#include <%s>\n' "$@" | "${CC:-cc}" -fsyntax-only -x c - 2>/dev/null
}

# proxies WHAT: those against which the benchmark measures. Debian keeps daemons where only root's PATH leads.
proxies() {
    program "$1" nginx nginx /usr/sbin/nginx
    program "$1" haproxy haproxy /usr/sbin/haproxy
}

# LiteLLM has a venv of its own: it asks for other versions of what we use.
litellm() {
    local venv=bench/.venv-litellm
    if [[ -e "$venv/.installed" ]]; then return; fi
    echo "Installing litellm[proxy] into $venv, which can take some minutes …"
    if "${PYTHON:-python3}" -m venv --clear "$venv" \
        && "$venv/bin/pip" install --quiet --disable-pip-version-check "litellm[proxy]"; then
        touch "$venv/.installed"
        return
    fi
    frame "LEFT OUT: the benchmark's contestant litellm: it could not be installed."
}

resumable_stream() {
    program "the benchmark's contestant resumable-stream" nodejs node
    program "the benchmark's contestant resumable-stream" npm npm
    program "the benchmark's contestant resumable-stream" redis-server redis-server
    local directory=bench/contestants/resumable-stream
    if [[ -d "$directory/node_modules/resumable-stream" ]]; then return; fi
    if npm install --silent --no-package-lock --prefix "$directory"; then return; fi
    frame "LEFT OUT: the benchmark's contestant resumable-stream: its packages could not be installed."
}

can_install() {
    [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null
}

# Debian starts a daemon when it installs one, and again at every boot: nginx would take port 80. Only the programs
# are wanted. policy-rc.d is asked before a service is started, and 101 forbids it. Where there is one already,
# the machine has its own rules, and they stay.
apt_install() (
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    echo "Installing $* with apt-get …"
    exec </dev/null >/dev/null
    apt-get update -qq || return
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@" || return
    for name in "$@"; do
        if [[ -e "/etc/init.d/$name" ]]; then update-rc.d "$name" disable || true; fi
    done
)

frame() {
    local bar
    bar="$(printf '%*s' "$((${#1} + 4))" '' | tr ' ' '#')"
    printf '\n%s\n# %s #\n%s\n\n' "$bar" "$1" "$bar" >&2
}

main "$@"
