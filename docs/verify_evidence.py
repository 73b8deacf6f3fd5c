#!/usr/bin/env python3
"""Checks evidence bundles of Quittance, offline and without any of its code.

    pip install cryptography && python3 verify_evidence.py --key KEY [--key KEY ...] BUNDLE [BUNDLE ...]

KEY is a published verifier key (name+id+base64) of the log, of its receipts or of a witness, had from its owner and not
from the bundle. A witness whose key is given must have cosigned. Exit status: 0 if every bundle is proved, 1 if not.
"""
import argparse, base64, hashlib, json, re, sys, unicodedata
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

def need(condition, why):
    if not condition:
        raise ValueError(why)

def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()

def unbase64(text):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 in another spelling")
    return data

def integer(text):
    need(re.fullmatch("0|[1-9][0-9]{0,19}", text, re.ASCII) and int(text) < 2**64, "not a 64-bit integer")
    return int(text)

def key_name(text):
    plain = all(not c.isspace() and c != "+" and unicodedata.category(c) != "Cc" for c in text)
    need(plain and 0 < len(text.encode()) <= 255, "not the name of a key")
    return text

def parse_key(text):
    """name, id and type of a verifier key, and the public key itself."""
    name, key_id, data = text.split("+", 2)
    data = unbase64(data)
    need(len(data) == 33 and data[0] in (1, 4), f"{name}: neither an Ed25519 key nor that of a witness")
    need(sha256(key_name(name).encode(), b"\n", data)[:4].hex() == key_id, f"{name}: wrong key id")
    return name, bytes.fromhex(key_id), data[0], Ed25519PublicKey.from_public_bytes(data[1:])

def open_note(note, keys):
    """The text of a signed note, and (name, type, time) of each trusted key that signed it."""
    need(all(c >= " " or c == "\n" for c in note) and len(note.encode()) <= 262_144, "not a note")
    text, blank, lines = note.rpartition("\n\n")
    need(blank and lines.endswith("\n"), "not a signed note")
    text, lines, signers = text + "\n", lines[:-1].split("\n"), []
    need(len(lines) <= 64, "too many signatures")
    for line in lines:
        dash, name, signature = (line.split(" ", 2) + ["", ""])[:3]
        signature = unbase64(signature)
        need(dash == "\u2014" and key_name(name) and len(signature) > 4, "malformed signature line")
        for key, key_id, kind, public in keys:
            if (key, key_id) != (name, signature[:4]):
                continue
            message, time, signed = text.encode(), None, signature[4:]
            if kind == 4:  # a witness signs a time as well
                time, signed = int.from_bytes(signed[:8], "big"), signed[8:]
                need(time < 2**63, "time out of range")
                message = f"cosignature/v1\ntime {time}\n{text}".encode()
            try:
                public.verify(signed, message)
            except InvalidSignature:
                raise ValueError(f"the signature of {name} does not verify") from None
            signers.append((name, kind, time))
    need(signers, "not signed by a trusted key")
    return text, signers

def root_from(leaf, index, size, proof):
    """The root to which an inclusion proof leads (RFC 9162, 2.1.3.2)."""
    need(index < size and len(proof) <= 63, "beyond the log")
    last, node = size - 1, leaf
    for sibling in proof:
        need(last > 0, "proof too long")
        if index % 2 or index == last:
            node = sha256(b"\1", sibling, node)
            while index and not index % 2:
                index, last = index >> 1, last >> 1
        else:
            node = sha256(b"\1", node, sibling)
        index, last = index >> 1, last >> 1
    need(last == 0, "proof too short")
    return node

def verify(data, keys):
    """Raises an error, or gives origin, tree size, witnesses and the entries."""
    need(len(data) <= 64 * 1024 * 1024, "too large")
    bundle = json.loads(data.decode())
    spelling = json.dumps(bundle, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    need(spelling.encode() == data, "the file was written anew")
    need(set(bundle) == {"checkpoint", "disclosures", "entries", "format", "last_entry", "payment_id"}
         and bundle["format"] == "quittance evidence bundle v1", "not a bundle of a known format")
    need(bundle["disclosures"] == sorted(set(bundle["disclosures"])), "disclosures out of order")
    need(len(bundle["entries"]) <= 16_384 and len(bundle["disclosures"]) <= 4_096, "too much")

    text, signers = open_note(bundle["checkpoint"], keys)
    origin, size, root, end = text.split("\n")
    size, root = integer(size), unbase64(root)
    need(end == "" and key_name(origin) and len(root) == 32 and size <= 2**62, "not a checkpoint")
    need(any(name == origin and kind == 1 for name, kind, _ in signers), "checkpoint not signed by the log")
    witnesses = {name: time for name, kind, time in signers if kind == 4}
    missing = [name for name, _, kind, _ in keys if kind == 4 and name not in witnesses]
    need(not missing, f"not cosigned by {', '.join(missing)}")

    leaves, digests, previous = [], set(), None
    for number, entry in enumerate(bundle["entries"], 1):
        need(set(entry) == {"inclusion_proof", "leaf_data", "leaf_index"}, f"entry {number} is malformed")
        leaf_data, leaf = entry["leaf_data"].encode(), json.loads(entry["leaf_data"])
        canonical = json.dumps(leaf, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        need(canonical.encode() == leaf_data and len(leaf_data) <= 65_535, f"entry {number} is not canonical")
        need(leaf["stream_id"] == leaf["payment_id"] == bundle["payment_id"], f"entry {number} is of another payment")
        need(leaf["tenant_id"] == (leaves or [leaf])[0]["tenant_id"], f"entry {number} is of another tenant")
        need(leaf["entity_seq"] == str(number), f"an entry is missing before entry {number}")
        need(leaf.get("prev_leaf_hash") == previous, f"entry {number} is not chained to the one before")
        proof = [bytes.fromhex(step) for step in entry["inclusion_proof"]]
        need([step.hex() for step in proof] == entry["inclusion_proof"], f"entry {number}: malformed proof")
        leaf_hash = sha256(b"\0", leaf_data)
        need(all(len(step) == 32 for step in proof)
             and root_from(leaf_hash, integer(entry["leaf_index"]), size, proof) == root, f"entry {number} is not in the log")
        previous = leaf_hash.hex()
        digests |= set(leaf.get("personal_data", {}).items())
        leaves.append(leaf)
    need(leaves, "no entries")
    text, signers = open_note(bundle["last_entry"], keys)
    need(any(kind == 1 and (name + "/").startswith(origin + "/") for name, kind, _ in signers), "statement not by the log")
    need(text == f"quittance last entry v1\npayment_id {bundle['payment_id']}\nentity_seq {len(leaves)}\n"
                 f"leaf_hash {previous}\norigin {origin}\ntree_size {size}\nroot_hash {root.hex()}\n",
         "the last entry, or the checkpoint, is not the one that the log states")

    for disclosure in bundle["disclosures"]:
        _salt, name, _value = json.loads(base64.urlsafe_b64decode(disclosure + "=" * (-len(disclosure) % 4)))
        digest = base64.urlsafe_b64encode(sha256(disclosure.encode())).decode().rstrip("=")
        need(re.fullmatch("[a-z][a-z0-9_.-]{0,63}", name) and (name, digest) in digests, "a disclosed value is in no entry")
    return origin, size, witnesses, leaves

def main():
    parser = argparse.ArgumentParser(description="Checks evidence bundles, offline.")
    parser.add_argument("--key", action="append", required=True, type=parse_key, metavar="KEY")
    parser.add_argument("bundle", nargs="+")
    arguments, refused = parser.parse_args(), 0
    for path in arguments.bundle:
        try:
            with open(path, "rb") as file:
                origin, size, witnesses, leaves = verify(file.read(), arguments.key)
            seen = ", ".join(f"{name} at {time}" for name, time in witnesses.items()) or "no witness"
            print(f"{path}: PROVED: payment {leaves[0]['payment_id']!r}: {len(leaves)} entries of {origin}, {size} entries; cosigned by {seen}")
        except Exception as error:  # whatever is wrong with it, it proves nothing; printed so that it cannot move the cursor
            refused += 1
            print(f"{path}: NOT PROVED: {error!r}")
    sys.exit(1 if refused else 0)

if __name__ == "__main__":
    main()
