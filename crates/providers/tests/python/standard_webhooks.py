"""Signs random webhooks with PyPI's standardwebhooks, and says what it thinks of altered ones.

Prints one JSON object a line: secret, id, timestamp, signature, body (base64), and whether it verifies. All are
signed now: the library looks at the clock.
"""

import base64
import json
import random
import sys
from datetime import datetime, timezone

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def altered(chance, good):
    """The webhook with one thing changed, or as it is."""
    bad = dict(good)
    what = chance.randrange(8)
    if what == 0 and bad["body"]:
        body = bytearray(bad["body"].encode())
        body[chance.randrange(len(body))] ^= 1
        bad["body"] = body.decode(errors="replace")
    elif what == 1:
        bad["id"] = bad["id"] + "x"
    elif what == 2:
        bad["timestamp"] = str(int(bad["timestamp"]) + chance.choice([-1, 1]))
    elif what == 3:
        bad["signature"] = bad["signature"].replace("v1,", "v2,")
    elif what == 4:
        bad["signature"] = "v1,AAAA " + bad["signature"]
    elif what == 5:
        bad["secret"] = "whsec_" + base64.b64encode(chance.randbytes(32)).decode()
    return bad


def verifies(webhook):
    headers = {
        "webhook-id": webhook["id"],
        "webhook-timestamp": webhook["timestamp"],
        "webhook-signature": webhook["signature"],
    }
    try:
        Webhook(webhook["secret"]).verify(webhook["body"], headers)
    except WebhookVerificationError:
        return False
    except json.JSONDecodeError:
        # It verified, and was then read.
        return True
    return True


def main():
    seed = int(sys.argv[1])
    chance = random.Random(seed)
    for number in range(int(sys.argv[2])):
        secret = "whsec_" + base64.b64encode(chance.randbytes(chance.randint(24, 64))).decode()
        now = datetime.now(tz=timezone.utc)
        characters = [chr(chance.choice([chance.randrange(32, 127), chance.randrange(0xA0, 0xD7FF)])) for _ in range(chance.randrange(200))]
        body = json.dumps({"number": number, "text": "".join(characters)}, ensure_ascii=False)
        good = {
            "secret": secret,
            "id": f"msg_{chance.randrange(1 << 60)}",
            "timestamp": str(int(now.timestamp())),
            "body": body,
        }
        good["signature"] = Webhook(secret).sign(msg_id=good["id"], timestamp=now, data=body)
        webhook = altered(chance, good)
        webhook["verifies"] = verifies(webhook)
        webhook["body"] = base64.b64encode(webhook["body"].encode()).decode()
        print(json.dumps(webhook))


main()
