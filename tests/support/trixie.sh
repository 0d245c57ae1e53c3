#!/bin/sh
# Installs Debian 13 with RabbitMQ 4 in the folder DIR, for `make test-rabbitmq4`. Does nothing if it is there.
#
#   tests/support/trixie.sh DIR     (root; MIRROR names another mirror of Debian)
set -eu

root=${1:?usage: tests/support/trixie.sh DIR}
mirror=${MIRROR:-http://deb.debian.org/debian}
[ ! -x "$root/usr/lib/rabbitmq/bin/rabbitmq-server" ] || exit 0
[ "$(id -u)" -eq 0 ] || { echo "RabbitMQ 4 runs in a chroot: run make test-rabbitmq4 as root" >&2; exit 3; }
command -v debootstrap >/dev/null ||
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends debootstrap >/dev/null

rm -rf "$root.part"
mkdir -p "$root.part"
debootstrap --variant=minbase --include=rabbitmq-server trixie "$root.part" "$mirror" >&2
mv "$root.part" "$root"
