#!/usr/bin/env bash
# Installs what a target of the Makefile needs, and does nothing where it is there already.
#
#   tests/install.sh demo    the package and its demo, into .venv
#   tests/install.sh test    that, the tools of tests and linters, and the programs that tests drive
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
            ;;
        *)
            echo "usage: tests/install.sh demo|test" >&2
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

can_install() {
    [[ "$(id -u)" == 0 ]] && command -v apt-get >/dev/null
}

apt_install() {
    echo "Installing $1 with apt-get …"
    {
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$1"
    } </dev/null >/dev/null
}

frame() {
    local bar
    bar="$(printf '%*s' "$((${#1} + 4))" '' | tr ' ' '#')"
    printf '\n%s\n# %s #\n%s\n\n' "$bar" "$1" "$bar" >&2
}

main "$@"
