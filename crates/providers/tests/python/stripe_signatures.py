"""Compares signatures with PyPI's stripe, both ways.

Reads webhooks from standard input, one JSON object a line (secret, header, body in base64), and prints what the library
thinks of each: true or false. Then, on lines of the same form and with its verdict beside it, as many of its own, some
of them altered. All are signed now: the library looks at the clock.
"""

import base64
import json
import random
import sys
import time

from stripe import SignatureVerificationError, WebhookSignature


def verifies(webhook):
    try:
        WebhookSignature.verify_header(webhook["body"], webhook["header"], webhook["secret"], tolerance=300)
    except SignatureVerificationError:
        return False
    return True


def altered(chance, good):
    """The webhook with one thing changed, or as it is."""
    bad = dict(good)
    time_part, _, signature = bad["header"].partition(",")
    what = chance.randrange(9)
    if what == 0:
        body = bytearray(bad["body"].encode())
        body[chance.randrange(len(body))] ^= 1
        bad["body"] = body.decode(errors="replace")
    elif what == 1:
        bad["header"] = f"t={int(time_part[2:]) + chance.choice([-1, 1])},{signature}"
    elif what == 2:
        bad["header"] = bad["header"].replace("v1=", "v0=")
    elif what == 3:
        bad["header"] = f"{time_part},v1={'0' * 64},{signature},v0={'1' * 64}"
    elif what == 4:
        bad["header"] = f"{signature},{time_part}"
    elif what == 5:
        bad["secret"] = bad["secret"][:-1] + ("0" if bad["secret"][-1] != "0" else "1")
    elif what == 6:
        bad["header"] = bad["header"].upper().replace("T=", "t=").replace("V1=", "v1=")
    return bad


def random_body(chance, number):
    ranges = [(32, 127), (0xA0, 0xD7FF), (0x1F300, 0x1F64F)]
    text = "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(chance.randrange(200)))
    return json.dumps({"id": f"evt_{number}", "text": text}, ensure_ascii=False)


def main():
    chance = random.Random(int(sys.argv[1]))
    for line in sys.stdin:
        webhook = json.loads(line)
        webhook["body"] = base64.b64decode(webhook["body"]).decode()
        print(json.dumps(verifies(webhook)))
    for number in range(int(sys.argv[2])):
        secret = "whsec_" + "".join(chance.choices("0123456789abcdefABCDEFxyz", k=chance.randint(24, 64)))
        body = random_body(chance, number)
        header = WebhookSignature.generate_signature_header(body, secret, int(time.time()))
        webhook = altered(chance, {"secret": secret, "header": header, "body": body})
        verdict = verifies(webhook)
        body = base64.b64encode(webhook["body"].encode()).decode()
        print(json.dumps({**webhook, "body": body, "verifies": verdict}))


main()
