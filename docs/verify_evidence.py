#!/usr/bin/env python3
"""Checks evidence bundles of Quittance, offline and without any of its code. Needs `pip install cryptography`.
KEY is a published verifier key (name+id+base64) of the log, of its receipts or of a witness, had from its owner and not
from the bundle. A witness whose key is given must have cosigned. Exit status: 0 if every bundle is proved, 1 if not."""
import argparse, base64, datetime, hashlib, json, pathlib, re, sys, unicodedata
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TEXT = r'([^"\\\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]|\\["\\])'  # no character that could forge or reorder a line
NAME, SALT, DIGEST = "[a-z][a-z0-9_.-]{0,63}", "[A-Za-z0-9_-]{21}[AQgw]", '"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]"'
P, Y8 = 2**255 - 19, 0x5fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826  # of Ed25519: see parse_key
FORMS = {  # what the fields of an entry look like in its bytes
    "text": f'"{TEXT}*"', "word": f'"{TEXT}+"', "flag": "(true|false)", "one": "1", "result": '"(success|failure|unknown)"',
    "u8": "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])", "u32": "(0|[1-9][0-9]{0,9})", "i64": '"(0|-?[1-9][0-9]{0,18})"',
    "hash": '"[0-9a-f]{64}"', "trace": '"[0-9a-f]{32}"', "span": '"[0-9a-f]{16}"', "salt": f'"{SALT}"',
    "uuid": '"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', "time": r'"\d{4}(-\d\d){2}T([01]\d|2[0-3])(:[0-5]\d){2}\.\d{6}Z"',
    "texts": rf'\{{"{NAME}":"{TEXT}*"(,"{NAME}":"{TEXT}*")*\}}', "digests": rf'\{{"{NAME}":{DIGEST}(,"{NAME}":{DIGEST})*\}}'}

def shape(fields):  # of an object with these fields, in this order, and no others; ? where one may be absent
    return r"\{" + re.sub(r"(\w+):(\w+)(\??) ?", lambda m: rf'(((?<=\{{)|,)"{m[1]}":{FORMS[m[2]]}){m[3]}', fields) + r"\}"
FORMS |= {"actor": shape("auth_method:text? id:text type:word"), "cause": shape("code:text retryable:flag"), "amounts": shape(
    "authorized:i64 capture_pending:i64 captured:i64 charged_back:i64 excess:i64 refund_pending:i64 refunded:i64 void_pending:i64"
    " voided:i64"), "source": shape("instance:text peer:text? rpc_method:text? service:text version:text")}
ENTRY = re.compile(shape(
    "actor:actor amount_minor:i64? amounts:amounts? attempt:u32? capture_method:text? cause:cause? currency:text? currency_exponent:u8?"
    " decline_code:text? details:texts? entity_seq:text entry_id:uuid event_type:word grpc_status:text? idempotency_key_digest:hash?"
    " leaf_salt:salt max_attempts:u32? merchant_reference:text? next_retry_at:time? occurred_at:time payment_id:uuid"
    " payment_row_digest:hash? personal_data:digests? prev_leaf_hash:hash? provider_account:text? provider_reference:text?"
    " provider_request_digest:hash? provider_response_digest:hash? recorded_at:time remote_span_id:span? remote_trace_id:trace?"
    " request_id:text? result:result schema_version:one source:source span_id:span state_from:text? state_to:text? stream_id:uuid"
    " tenant_id:word trace_flags:u8 trace_id:trace transaction_id:uuid?"), re.ASCII)

def need(condition, why):
    if not condition: raise ValueError(why)
def sha256(*parts): return hashlib.sha256(b"".join(parts)).digest()
def integer(text): return int(re.fullmatch("0|[1-9][0-9]{0,19}", text, re.ASCII)[0])
def canonical(value): return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
def base64url(data): return base64.urlsafe_b64encode(data).decode().rstrip("=")
def unbase64(text):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "base64 in another spelling")
    return data
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
    small = (0, 1, P - 1, Y8, P - Y8)  # y of the points of small order: under such a key, anybody's signature verifies
    need(int.from_bytes(data[1:], "little") % 2**255 % P not in small, f"{name}: a key of small order")
    return name, bytes.fromhex(key_id), data[0], Ed25519PublicKey.from_public_bytes(data[1:])

def open_note(what, note, keys):
    """The text of a signed note, and (name, type, time) of each trusted key that signed it."""
    need(all(c >= " " or c == "\n" for c in note) and len(note.encode()) <= 262_144, "not a note")
    text, blank, lines = note.rpartition("\n\n")
    need(blank and lines.endswith("\n") and lines.count("\n") <= 64, "not a signed note")
    text, signers = text + "\n", []
    for dash, name, data in [line.split(" ") for line in lines[:-1].split("\n")]:
        data = unbase64(data)
        need(dash == "\u2014" and key_name(name) and len(data) > 4, "malformed signature line")
        for _, _, kind, public in [key for key in keys if key[:2] == (name, data[:4])]:
            time = int.from_bytes(data[4:12], "big") if kind == 4 else 0  # a witness signs a time as well
            need(time < 2**63, "time out of range")
            message = f"cosignature/v1\ntime {time}\n{text}" if kind == 4 else text
            public.verify(data[12:] if kind == 4 else data[4:], message.encode())  # or else InvalidSignature
            signers.append((name, kind, time))
    need(signers, f"{what} is not signed by a key that was given")
    return text, signers

def root_from(leaf, index, size, proof):
    """The root to which an inclusion proof leads (RFC 9162, 2.1.3.1)."""
    need(index < size and bool(proof) == (size > 1), "the proof is of another place or size")
    if size == 1: return leaf
    left = 1 << (size - 1).bit_length() - 1  # the largest power of two below the size: leaves of the left subtree
    if index < left: return sha256(b"\1", root_from(leaf, index, left, proof[:-1]), proof[-1])
    return sha256(b"\1", proof[-1], root_from(leaf, index - left, size - left, proof[:-1]))

def read_entry(data):
    """An entry: every field is known, and in its one form."""
    leaf = json.loads(data)
    need(leaf["schema_version"] == 1, "an entry of another schema")
    need(ENTRY.fullmatch(data.decode()) and canonical(leaf) == data and len(data) <= 65_535, "an entry of another form")
    need(not leaf.keys() & {"amounts", "amount_minor"} or {"currency", "currency_exponent"} <= leaf.keys(), "no currency")
    amounts = [*leaf.get("amounts", {}).values(), leaf.get("amount_minor", 0)]
    need(all(-2**63 <= int(amount) < 2**63 for amount in amounts)
         and max(leaf.get("attempt", 0), leaf.get("max_attempts", 0)) < 2**32, "a number out of range")
    need([datetime.date.fromisoformat(leaf[name][:10]) for name in leaf if name.endswith("_at")], "no date")  # or ValueError
    return leaf

def verify(data, keys):
    """Raises an error, or gives origin, tree size, witnesses and the entries."""
    need(len(data) <= 64 * 1024 * 1024, "too large")
    bundle = json.loads(data.decode())
    need((json.dumps(bundle, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode() == data, "the file was written anew")
    need(set(bundle) == {"checkpoint", "disclosures", "entries", "format", "last_entry", "payment_id"}
         and bundle["format"] == "quittance evidence bundle v1", "not a bundle of a known format")
    need(bundle["disclosures"] == sorted(set(bundle["disclosures"])), "disclosures out of order")
    need(0 < len(bundle["entries"]) <= 16_384 and len(bundle["disclosures"]) <= 4_096, "no entries, or too much")
    text, signers = open_note("the checkpoint", bundle["checkpoint"], keys)
    origin, size, root, end = text.split("\n")
    size, root = integer(size), unbase64(root)
    need(end == "" and key_name(origin) and len(root) == 32 and size <= 2**62, "not a checkpoint")
    below = origin.endswith("/receipts") or any(kind == 1 and origin.startswith(name + "/") for name, _, kind, _ in keys)
    need(not below and any(name == origin and kind == 1 for name, kind, _ in signers), "checkpoint not signed by the log")
    witnesses = {name: time for name, kind, time in signers if kind == 4}
    for name, _, kind, _ in keys: need(kind != 4 or name in witnesses, f"not cosigned by {name}")
    leaves, previous = [], None
    for number, entry in enumerate(bundle["entries"], 1):
        need(set(entry) == {"inclusion_proof", "leaf_data", "leaf_index"}, f"entry {number} is malformed")
        leaf = read_entry(entry["leaf_data"].encode())
        need(leaf["stream_id"] == leaf["payment_id"] == bundle["payment_id"], f"entry {number} is of another payment")
        need(leaf["tenant_id"] == (leaves or [leaf])[0]["tenant_id"], f"entry {number} is of another tenant")
        need(leaf["entity_seq"] == str(number), f"an entry is missing before entry {number}")
        need(leaf.get("prev_leaf_hash") == previous, f"entry {number} is not chained to the one before")
        leaf_hash, proof = sha256(b"\0", entry["leaf_data"].encode()), [bytes.fromhex(step) for step in entry["inclusion_proof"]]
        need([step.hex() for step in proof if len(step) == 32] == entry["inclusion_proof"]
             and root_from(leaf_hash, integer(entry["leaf_index"]), size, proof) == root, f"entry {number} is not in the log")
        leaves.append(leaf)
        previous = leaf_hash.hex()
    text, signers = open_note("the statement of the last entry", bundle["last_entry"], keys)
    need(any(kind == 1 and (name + "/").startswith(origin + "/") for name, kind, _ in signers), "statement not by the log")
    need(text == f"quittance last entry v1\npayment_id {bundle['payment_id']}\nentity_seq {len(leaves)}\nleaf_hash {previous}\n"
                 f"origin {origin}\ntree_size {size}\nroot_hash {root.hex()}\n", "another last entry or checkpoint is stated")
    digests = {item for leaf in leaves for item in leaf.get("personal_data", {}).items()}
    for disclosure in bundle["disclosures"]:
        salt, name, value = json.loads(base64.urlsafe_b64decode(disclosure + "=" * (-len(disclosure) % 4)))
        need(re.fullmatch(SALT, salt) and re.fullmatch(NAME, name) and len(value.encode()) <= 8_192
             and base64url(canonical([salt, name, value])) == disclosure, "a disclosed value is malformed")
        need((name, base64url(sha256(disclosure.encode()))) in digests, "a disclosed value is in no entry")
    return origin, size, witnesses, leaves

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Checks evidence bundles, offline.")
    parser.add_argument("--key", action="append", required=True, type=parse_key, metavar="KEY")
    parser.add_argument("bundle", nargs="+")
    arguments, refused = parser.parse_args(), 0
    for path in arguments.bundle:
        try:
            origin, size, witnesses, leaves = verify(pathlib.Path(path).read_bytes(), arguments.key)
            print(f"{path}: PROVED: payment {leaves[0]['payment_id']!r}: {len(leaves)} of {size} entries of {origin};"
                  f" cosigned by {witnesses or 'no witness'}")
        except Exception as error:  # whatever is wrong with it, it proves nothing; printed so that it cannot move the cursor
            refused += 1
            print(f"{path}: NOT PROVED: {error!r:.200}")
    sys.exit(1 if refused else 0)
