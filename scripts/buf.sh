#!/bin/sh
# Checks the contract with buf: its style, and that it breaks nothing of the last release.
# buf comes from npm, pinned, and is installed once, under target/.
set -eu

VERSION=1.75.0
cd "$(dirname "$0")/.."
tools=target/tools/buf-$VERSION
buf=$tools/node_modules/.bin/buf

if [ ! -x "$buf" ]; then
    command -v npm >/dev/null 2>&1 || {
        echo 'buf: npm is missing; `make verify` needs Node.js (the build and the tests do not)' >&2
        exit 1
    }
    mkdir -p "$tools"
    npm install --prefix "$tools" --no-save --no-audit --no-fund --loglevel=error \
        "@bufbuild/buf@$VERSION" >&2
fi

"$buf" lint
if tag=$(git describe --tags --abbrev=0 2>/dev/null); then
    "$buf" breaking --against ".git#tag=$tag"
else
    echo 'buf: no release tag yet, so there is nothing that could break' >&2
fi
