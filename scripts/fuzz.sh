#!/usr/bin/env bash
# Fuzzes every parser of the evidence crate: fuzz.sh [seconds for each target] [target ...]
#
# With cargo-fuzz: the one on PATH, else one that is installed once, under target/. Needs a C++ compiler and Python 3. The
# stable compiler will do: RUSTC_BOOTSTRAP=1 lets it take the flags of sanitizers. What is found is in
# crates/evidence/fuzz/artifacts; cargo fuzz says how to replay it.
set -euo pipefail

VERSION=0.13.2
cd "$(dirname "$0")/.."
tools=$PWD/target/tools/cargo-fuzz-$VERSION
PATH=$PATH:$tools/bin
if ! command -v cargo-fuzz > /dev/null; then
    echo 'fuzz: installing cargo-fuzz once, which takes a few minutes' >&2
    cargo install --quiet --locked --debug --root "$tools" cargo-fuzz --version "$VERSION"
fi
cd crates/evidence

seconds=${1:-60}
shift || true
export RUSTC_BOOTSTRAP=1

# Begins with what is right, or most inputs would be refused at the first byte.
python3 - <<'SEEDS'
import hashlib, json, pathlib, re
docs = pathlib.Path("../../docs")
file = (docs / "example-evidence.json").read_bytes()
bundle = json.loads(file)
notes = [bundle["checkpoint"], bundle["last_entry"]]
seeds = {
    "bundle": [file],
    "note": notes,
    "texts": [note.rpartition("\n\n")[0] + "\n" for note in notes],
    "leaf": [entry["leaf_data"] for entry in bundle["entries"]] + bundle["disclosures"],
    "keys": re.findall(r"'([^' ]+\+[0-9a-f]{8}\+[^' ]+)'", (docs / "evidence.md").read_text()),
}
for target, inputs in seeds.items():
    corpus = pathlib.Path("fuzz/corpus") / target
    corpus.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        data = data if isinstance(data, bytes) else data.encode()
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
SEEDS

for target in ${@:-$(cargo fuzz list)}; do
    echo "== $target, $seconds s"
    cargo fuzz run "$target" -- -max_total_time="$seconds" -timeout=10 -max_len=32768 -print_final_stats=1
done
