#!/bin/sh
# Checks the dependency policy (deny.toml) with cargo-deny: the one on PATH, else one that is
# installed once, under target/. Advisories are not checked here: their database comes from a
# code-hosting site, and `make verify` fetches from package registries only.
set -eu

VERSION=0.20.2
cd "$(dirname "$0")/.."
tools=target/tools/cargo-deny-$VERSION
deny=$(command -v cargo-deny || echo "$tools/bin/cargo-deny")

if [ ! -x "$deny" ]; then
    echo 'deny: installing cargo-deny once, which takes a few minutes' >&2
    # Unoptimized builds in a third of the time, and is fast enough.
    cargo install --quiet --locked --debug --root "$tools" cargo-deny --version "$VERSION"
fi
"$deny" --log-level error check --hide-inclusion-graph bans licenses sources
