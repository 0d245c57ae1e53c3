#!/usr/bin/env bash
# Installs the system packages that facemill is built and run with, those that are missing only.
#
#   deploy/setup.sh [--tests] [--check]     (Debian 12 or newer, Ubuntu 24.04 or newer)
#
#   --tests   the servers too that the tests start
#   --check   only tell
#
# Exit codes: 0 all there, 1 --check found something missing, 2 usage, 3 something is missing and cannot be installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
check_only=false
tests=false
for argument; do
    case $argument in
        --check) check_only=true ;;
        --tests) tests=true ;;
        *)
            echo "usage: deploy/setup.sh [--tests] [--check]" >&2
            exit 2
            ;;
    esac
done

missing=()  # lines for a person
packages=() # names for apt

# need PACKAGE WHY PROBE...: the probe succeeds when the thing is there, whoever put it there.
need() {
    local package=$1 why=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        packages+=("$package")
        missing+=("$(printf '%-20s %s' "$package" "$why")")
    fi
}

need g++ "compiles the face detector's C++ part" command -v g++
need pkg-config "finds the libraries below" command -v pkg-config
need mold "links the program" command -v mold
need libdlib-dev "face detector and landmarks" pkg-config --exists dlib-1
need liblapack-dev "linear algebra for dlib" pkg-config --exists lapack
need libopenblas-dev "linear algebra for dlib" pkg-config --exists openblas
need libturbojpeg0-dev "reads JPEG fast" pkg-config --exists libturbojpeg
need python3 "fetches the models" python3 -c 'import sys; assert sys.version_info >= (3, 9)'
need python3-pip "knows the package index of this machine" \
    python3 -c 'import os, importlib.util as u; assert os.environ.get("PIP_INDEX_URL") or u.find_spec("pip")'
need ca-certificates "whom to trust when fetching photos" test -e /etc/ssl/certs/ca-certificates.crt
need postgresql-client "pg_restore, for dumps in custom format" command -v pg_restore
if $tests; then
    # Debian's redis-tools has the server's program too, and starts no service as redis-server does.
    need redis-tools "the tests' Redis server" \
        bash -c 'command -v redis-server || test -x /usr/bin/redis-check-rdb'
    need python3-pip "installs the tests' Python packages" python3 -m pip --version
    need iproute2 "network namespaces stand in for pods" command -v ip
    need nftables "network policies between them" bash -c 'command -v nft || test -x /usr/sbin/nft'
    need curl "uploads dumps" command -v curl
    need rabbitmq-server "the tests start private ones" test -x /usr/lib/rabbitmq/bin/rabbitmq-server
    need prometheus "its promtool tries the alerts and the dashboard" command -v promtool
fi

# Rust is not apt's: what Debian packages is too old.
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml")
rust_line=
if ! PATH=$PATH:${HOME-}/.cargo/bin command -v cargo >/dev/null; then
    rust_line="$(printf "%-20s" "Rust $wanted_rust") not found: install it with rustup, then open a new shell"
else
    rust=$(PATH=$PATH:${HOME-}/.cargo/bin rustc --version 2>/dev/null | cut -d' ' -f2 || true)
    if [[ $(printf '%s\n' "$wanted_rust" "${rust:-0}" | sort -V | head -n1) != "$wanted_rust" ]]; then
        rust_line="$(printf "%-20s" "Rust $wanted_rust") found ${rust:-none}: run \`rustup update\`, or install it with rustup"
    fi
fi

# What checks the manifests: pinned, each file by its hash, in a folder of its own.
pinned=$here/tests/deploy/requirements.txt
python_packages=$here/.cache/python
python_packages_are_there() {
    cmp -s "$pinned" "$python_packages/requirements.txt"
}
install_python_packages() {
    echo "installing what checks the manifests" >&2
    rm -rf "$python_packages.part"
    python3 -m pip install --quiet --no-deps --require-hashes --only-binary :all: --no-compile --root-user-action ignore \
        --target "$python_packages.part" --requirement "$pinned" >&2 || exit 3
    rm -rf "$python_packages"
    mv "$python_packages.part" "$python_packages"
    cp "$pinned" "$python_packages/requirements.txt"
}

if [[ ${#missing[@]} -eq 0 && -z $rust_line ]]; then
    if $tests && ! python_packages_are_there; then
        if $check_only; then
            echo "the packages of tests/deploy/requirements.txt are missing: run deploy/setup.sh --tests" >&2
            exit 1
        fi
        install_python_packages
    fi
    exit 0
fi

as_root=()
may_install=true
why_not=
if ! command -v apt-get >/dev/null; then
    may_install=false why_not="this is neither Debian nor Ubuntu: install the counterparts of these packages"
elif [[ $(id -u) -ne 0 ]]; then
    as_root=(sudo)
    if ! sudo -n true 2>/dev/null; then
        may_install=false why_not="not root, and sudo asks for a password"
        command -v sudo >/dev/null || why_not="not root, and there is no sudo"
    fi
fi

tell() {
    echo "facemill needs what is missing here:"
    [[ ${#missing[@]} -eq 0 ]] || printf '  %s\n' "${missing[@]}"
    [[ -z $rust_line ]] || echo "  $rust_line"
    if [[ ${#missing[@]} -gt 0 ]]; then
        [[ -z $why_not ]] || echo "$why_not"
        if command -v apt-get >/dev/null; then
            echo "to install: sudo apt-get install --no-install-recommends ${packages[*]}"
        fi
    fi
}

if $check_only; then
    tell >&2
    exit 1
fi
if [[ -n $rust_line ]] || { [[ ${#missing[@]} -gt 0 ]] && ! $may_install; }; then
    tell >&2
    exit 3
fi

echo "installing ${packages[*]}" >&2
apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}
# One foreign source that is away must not stop the rest; if a package is really not to be had, install says so.
apt_get update || echo "apt-get update had trouble; going on with the package lists that are here" >&2

# Debian starts a server as soon as it is installed, and whenever the machine starts, for all the world to use. The tests
# start their own.
servers=()
for package in "${packages[@]}"; do
    case $package in *-server | prometheus) servers+=("$package") ;; esac
done
policy=/usr/sbin/policy-rc.d
keep_services_stopped() {
    if [[ ! -e $policy ]] && printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null; then
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
        "${as_root[@]}" chmod +x "$policy"
    fi
}
[[ ${#servers[@]} -eq 0 ]] || keep_services_stopped
if ! apt_get install -y --no-install-recommends "${packages[@]}"; then
    tell >&2
    exit 3
fi
if [[ ${#servers[@]} -gt 0 ]] && command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl --quiet disable "${servers[@]}" >&2 || echo "could not disable ${servers[*]}" >&2
fi
if $tests && ! python_packages_are_there; then
    install_python_packages
fi
