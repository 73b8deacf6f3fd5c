#!/usr/bin/env python3
"""Makes vectors.rs: golden entries, computed with Python's standard library only.

For the values that entries hold (objects with ASCII keys, strings, integers, booleans),
json.dumps with these settings is RFC 8785. Run: make_vectors.py > vectors.rs
"""

import base64
import hashlib
import hmac
import json


def jcs(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def disclosure(salt, name, value):
    encoded = b64url(jcs([b64url(salt), name, value]).encode())
    return encoded, b64url(hashlib.sha256(encoded.encode()).digest())


def leaf_hash(data):
    return hashlib.sha256(b"\x00" + data.encode()).hexdigest()


KEY_ID, KEY = b"mac-2026-01", bytes(range(32))


def mac(data):
    message = b"quittance leaf mac v1\x00" + bytes([len(KEY_ID)]) + KEY_ID + data.encode()
    return hmac.new(KEY, message, hashlib.sha256).hexdigest()


PAYMENT = "01890a5d-ac96-774b-bcce-b302099a8057"
TRANSACTION = "01890a5d-ac96-7b7c-8f89-37c3d0a66aa1"
NAME = disclosure(bytes(range(16)), "customer.name", "Zoë \"Z\" O'Neil\n\u0001")
EMAIL = disclosure(bytes(range(16, 32)), "customer.email", "zoe@example.com")


def base(seq, prev, event, **more):
    entry = {
        "schema_version": 1,
        "leaf_salt": b64url(bytes([seq]) * 16),
        "entry_id": f"01890a5d-ac97-7000-8000-{seq:012x}",
        "tenant_id": "acme",
        "stream_id": PAYMENT,
        "entity_seq": str(seq),
        "payment_id": PAYMENT,
        "event_type": event,
        "occurred_at": f"2026-02-28T23:59:5{seq}.000000Z",
        "recorded_at": f"2026-02-28T23:59:5{seq}.000120Z",
        "actor": {"type": "api_key", "id": "checkout", "auth_method": "bearer"},
        "source": {"service": "quittance", "version": "0.1.0", "instance": "replica-1"},
        "result": "success",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": "00f067aa0ba902b7",
        "trace_flags": 1,
    }
    if prev:
        entry["prev_leaf_hash"] = leaf_hash(prev)
    entry.update(more)
    return jcs(entry)


FIRST = base(
    1,
    None,
    "payment.accepted",
    transaction_id=TRANSACTION,
    merchant_reference='Bestellung "42" \\ Größe Ä 😀',
    capture_method="MANUAL",
    amounts=dict.fromkeys(
        "authorized captured capture_pending voided void_pending refunded refund_pending "
        "charged_back excess".split(),
        "0",
    ),
    payment_row_digest="11" * 32,
    source={
        "service": "quittance",
        "version": "0.1.0",
        "instance": "replica-1",
        "peer": "[2001:db8::1]:50123",
        "rpc_method": "quittance.v1.PaymentService/CreatePayment",
    },
    state_to="PENDING",
    amount_minor="1234",
    currency="KWD",
    currency_exponent=3,
    attempt=1,
    max_attempts=8,
    provider_account="sandbox-eu",
    provider_request_digest="22" * 32,
    idempotency_key_digest="33" * 32,
    request_id="req-7",
    remote_trace_id="0af7651916cd43dd8448eb211c80319c",
    remote_span_id="b7ad6b7169203331",
    personal_data={"customer.name": NAME[1], "customer.email": EMAIL[1]},
)
SECOND = base(
    2,
    FIRST,
    "payment.attempt_unknown",
    transaction_id=TRANSACTION,
    result="unknown",
    cause={"code": "PROVIDER_TIMEOUT", "retryable": True},
    state_from="PENDING",
    state_to="PENDING",
    attempt=1,
    max_attempts=8,
    next_retry_at="2026-03-01T00:00:07.250001Z",
    actor={"type": "system", "id": "recovery"},
    trace_flags=0,
)
THIRD = base(
    3,
    SECOND,
    "payment.declined",
    transaction_id=TRANSACTION,
    result="failure",
    grpc_status="OK",
    decline_code="INSUFFICIENT_FUNDS",
    cause={"code": "DECLINED", "retryable": False},
    state_from="PENDING",
    state_to="DECLINED",
    provider_reference="sbx_/1",
    provider_response_digest="44" * 32,
    details={
        "reason": "line one\ufffd\ufffdline two",
        "a-b": "",
        "a.b": "\u20ac",
        "a_b": "\ufffd",
    },
)
LARGEST = base(
    1,
    None,
    "payment.fact_recorded",
    amounts={
        "authorized": str(2**63 - 1),
        "captured": str(-(2**63)),
        "capture_pending": "-1",
        "voided": "0",
        "void_pending": "1",
        "refunded": "10",
        "refund_pending": "9007199254740993",
        "charged_back": "100",
        "excess": "99",
    },
    amount_minor=str(-(2**63)),
    currency="JPY",
    currency_exponent=0,
    attempt=2**32 - 1,
    max_attempts=0,
    trace_flags=255,
    occurred_at="0001-01-01T00:00:00.000000Z",
    recorded_at="9999-12-31T23:59:59.999999Z",
)
NAMED = base(
    1,
    None,
    "audit.read",
    stream_id="audit-reads/01890a5d-ac98-7000-8000-000000000001",
    details={"filter.trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "page_size": "50"},
    trace_id="0" * 32,
    span_id="0" * 16,
)
# A named stream concerns no payment.
NAMED = jcs({k: v for k, v in json.loads(NAMED).items() if k != "payment_id"})


def main():
    print("// Made by make_vectors.py with Python's standard library; not by this crate.\n")
    for name, data in [
        ("FIRST", FIRST),
        ("SECOND", SECOND),
        ("THIRD", THIRD),
        ("LARGEST", LARGEST),
        ("NAMED", NAMED),
    ]:
        print(f"pub const {name}: Vector = Vector {{")
        print(f'    leaf_data: r#"{data}"#,')
        print(f'    leaf_hash: "{leaf_hash(data)}",')
        print(f'    mac: "{mac(data)}",')
        print("};\n")
    for name, (encoded, digest) in [("CUSTOMER_NAME", NAME), ("CUSTOMER_EMAIL", EMAIL)]:
        print(f"pub const {name}: Disclosed = Disclosed {{")
        print(f'    encoded: "{encoded}",')
        print(f'    digest: "{digest}",')
        print("};\n")


main()
