#!/bin/bash
# Installs what the build needs and is not there yet (Debian 12, Ubuntu 24.04), and any further package named.
# Elsewhere it only says what is needed.
#   tools/packages.sh [package...]
set -euo pipefail
packages=(gcc g++ make cmake pkg-config libcjson-dev libsentencepiece-dev libopenblas-dev libjpeg-dev libpng-dev
    libwebsockets-dev python3-venv libvulkan-dev glslang-tools "$@")

if ! command -v apt-get >/dev/null; then
    echo "no apt-get here; the build needs what Debian calls: ${packages[*]}"
    exit 0
fi
missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || state=unknown
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

echo "installing: ${missing[*]}"
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
"${sudo[@]}" apt-get update
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
