"""Signs random webhook items with PyPI's Adyen library, and says what it thinks of altered ones and of ours.

First argument: a seed; second: how many items. Prints one JSON object a line: key, item, and whether it verifies.
With the argument "verify", reads such lines from standard input instead, and prints for each whether it verifies.
"""

import json
import random
import sys

from Adyen.util import generate_notification_sig, is_valid_hmac_notification

EVENTS = ["AUTHORISATION", "CAPTURE", "CAPTURE_FAILED", "CANCELLATION", "REFUND", "CHARGEBACK", "REPORT_AVAILABLE"]
SIGNED = ["pspReference", "originalReference", "merchantAccountCode", "merchantReference", "eventCode", "success"]


def text(chance, most):
    """Any characters, the separator and those beyond ASCII among them."""
    ranges = [lambda: chance.randrange(32, 127), lambda: ord(":"), lambda: chance.randrange(0xA0, 0xD7FF)]
    return "".join(chr(chance.choice(ranges)()) for _ in range(chance.randrange(most)))


def item(chance):
    made = {
        "pspReference": text(chance, 20),
        "merchantAccountCode": text(chance, 20),
        "merchantReference": text(chance, 80),
        "amount": {"value": chance.choice([0, 1, -1, chance.randrange(1 << 50)]), "currency": text(chance, 4)},
        "eventCode": chance.choice(EVENTS),
        "eventDate": "2026-01-02T03:04:05+01:00",
        "success": chance.choice(["true", "false"]),
        "reason": text(chance, 30),
    }
    # One that is null, rather than missing, their library signs as Python writes it.
    if chance.random() < 0.5:
        made["originalReference"] = text(chance, 20)
    return made


def altered(chance, signed):
    what = chance.randrange(14)
    if what < len(SIGNED):
        signed[SIGNED[what]] = signed.get(SIGNED[what], "") + chance.choice(["x", ":", " "])
    elif what == 6:
        signed["amount"]["value"] += 1
    elif what == 7:
        signed["amount"]["currency"] += "R"
    elif what == 8:
        signature = signed["additionalData"]["hmacSignature"]
        signed["additionalData"]["hmacSignature"] = signature[:-2] + chance.choice("ABC") + "="
    elif what == 9:
        signed["reason"] += "x"
    return signed


def verifies(line):
    return bool(is_valid_hmac_notification(line["item"], line["key"]))


def make():
    chance = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        key = chance.randbytes(32).hex()
        key = chance.choice([key.upper(), key])
        made = item(chance)
        signature = generate_notification_sig(made, key).decode()
        made["additionalData"] = {"hmacSignature": signature, "other": text(chance, 9)}
        line = {"key": key, "item": altered(chance, made)}
        line["verifies"] = verifies(line)
        print(json.dumps(line))


def judge():
    for line in sys.stdin:
        print(json.dumps(verifies(json.loads(line))))


judge() if sys.argv[1] == "verify" else make()
