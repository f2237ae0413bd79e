#!/usr/bin/env bash
# Installs what a target of the Makefile needs, and does nothing where it is there already.
#
#   tests/install.sh demo    the package and its demo, into .venv
#   tests/install.sh test    that, the tools of tests and linters, and the programs that tests drive
#   tests/install.sh test-all  that, the WebSocket conformance suite with a Python 2.7 to run it, and a current nginx
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
        test) tests ;;
        test-all)
            tests
            conformance
            current_nginx
            ;;
        bench)
            package openai
            compiler "the benchmark"
            proxies "the benchmark's contestants"
            case "$*" in *litellm*) litellm ;; esac
            case "$*" in *resumable-stream*) resumable_stream ;; esac
            ;;
        *)
            echo "usage: tests/install.sh demo|test|test-all|bench [CONTESTANT…]" >&2
            exit 2
            ;;
    esac
}

tests() {
    package openai,test
    program "browser tests" chromium chromium chromium-browser google-chrome
    program "the demo's lines" curl curl
    compiler "tests of the benchmark"
    proxies "tests of the benchmark and of the edge templates"
    program "tests of the edge templates" caddy caddy
    npm_packages tests/peers/node "tests with Node's WebSocket client"
    npm_packages tests/web/node "tests of client.js in Node"
    npm_packages tests/sdks/node "tests of the SDKs for Node"
    npm_packages tests/react "tests of useChat in a React page"
    npm_packages tests/emit/node "tests of what openai's and AG-UI's clients read in Node"
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

# npm_packages DIRECTORY WHAT: what its package.json names, in the versions that the lock file says.
npm_packages() {
    local directory="$1" what="$2"
    local stamp="$directory/node_modules/.package-lock.json"
    program "$what" nodejs node
    program "$what" npm npm
    if [[ $stamp -nt $directory/package-lock.json ]]; then return; fi
    echo "Installing npm packages into $directory/node_modules …"
    if npm ci --silent --prefix "$directory" && touch "$stamp"; then return; fi
    frame "LEFT OUT: $what: npm packages could not be installed into $directory."
}

# Autobahn's suite is written for Python 2.7, which Debian last had in bullseye. Both are unpacked into a directory
# of their own, by whoever runs this: the machine's packages stay as they are.
conformance() {
    local home="$PWD/tests/conformance/.autobahn"
    if [[ -e "$home/.installed" ]]; then return; fi
    echo "Installing autobahntestsuite and Python 2.7 into ${home#"$PWD/"} …"
    rm -rf "$home"
    if python2 "$home" && autobahn "$home"; then
        touch "$home/.installed"
        return
    fi
    frame "LEFT OUT: WebSocket conformance: Autobahn's suite, or its Python 2.7, could not be installed."
}

python2() {
    unpack bullseye "$1" python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libpython2.7-dev libssl1.1 libffi7
}

# The nginx that Debian's next release will have, with the libraries that it asks for: whoever runs the official image
# has one as new. It is run by its own loader, and the machine's nginx stays as it is.
current_nginx() {
    local home="$PWD/tests/nginx/.current"
    if [[ -e "$home/.installed" ]]; then return; fi
    echo "Installing a current nginx into ${home#"$PWD/"} …"
    rm -rf "$home"
    if unpack sid "$home" nginx libc6 libcrypt1 libpcre2-8-0 libssl3t64 libzstd1 zlib1g; then
        touch "$home/.installed"
        return
    fi
    frame "LEFT OUT: the nginx template under a current nginx: it could not be installed."
}

# unpack SUITE HOME PACKAGE…: Debian's packages of this release, from the mirror that this machine uses anyway, checked
# with Debian's keys, into a directory of their own.
unpack() (
    suite="$1" home="$2"
    shift 2
    mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial" "$home/apt/packages" || return
    mirrors="$(apt-get indextargets --format '$(REPO_URI)' 'Component: main' | grep '/debian/*$')" || return
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirrors%%$'\n'*} $suite main" \
        >"$home/apt/sources.list" || return
    cd "$home/apt/packages" || return
    options=(
        -qq
        -o "Dir::Etc::sourcelist=$home/apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$home/apt/lists" -o "Dir::Cache=$home/apt"
        -o APT::Sandbox::User="$(id -un)"
    )
    apt-get "${options[@]}" update || return
    apt-get "${options[@]}" download "$@" || return
    for package in *.deb; do
        dpkg-deb --extract "$package" "$home" || return
    done
    rm -r "$home/apt"
)

# autobahn HOME: the suite and what it asks for, most of which it pins; some is compiled. The first three are the
# last ones for Python 2.7, and run from their wheels.
autobahn() (
    home="$1"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version 2.7 --dest "$home/wheels" pip==20.3.4 setuptools==44.0.0 wheel==0.37.1 || return
    PYTHONPATH="$(printf '%s:' "$home"/wheels/*.whl)"
    LD_LIBRARY_PATH="$(echo "$home"/usr/lib/*-linux-gnu)"
    CFLAGS="-I$home/usr/include"
    export PYTHONPATH LD_LIBRARY_PATH CFLAGS PYTHONWARNINGS=ignore PIP_NO_PYTHON_VERSION_WARNING=1
    "$home/usr/bin/python2.7" -m pip install --quiet --disable-pip-version-check \
        --target "$home/usr/lib/python2.7/dist-packages" autobahntestsuite==25.10.1 || return
    rm -r "$home/wheels"
)

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
