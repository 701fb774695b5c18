#!/usr/bin/env bash
# Makes sure that there is a Chromium for the tests in a browser: the one that is installed, else Debian's.
set -euo pipefail

for name in "${CHROMIUM:-chromium}" chromium-browser google-chrome-stable google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Chromium is missing: install it (Debian: apt-get install chromium), or name another in CHROMIUM." >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium >/dev/null
