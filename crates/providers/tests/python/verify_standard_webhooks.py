"""Verifies webhooks with PyPI's standardwebhooks: one JSON object a line on standard input (secret, id, timestamp,
signature, body in base64); prints `true` or `false` for each."""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def verifies(webhook):
    headers = {
        "webhook-id": webhook["id"],
        "webhook-timestamp": webhook["timestamp"],
        "webhook-signature": webhook["signature"],
    }
    try:
        Webhook(webhook["secret"]).verify(base64.b64decode(webhook["body"]).decode(), headers)
    except WebhookVerificationError:
        return False
    return True


for line in sys.stdin:
    print("true" if verifies(json.loads(line)) else "false")
