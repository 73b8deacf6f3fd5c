"""Validates requests against Adyen's own OpenAPI description, whose path is the first argument.

Reads one JSON object a line: the name of a schema, and a request. Prints "ok", or what is wrong, for each.
"""

import json
import sys

from jsonschema import Draft202012Validator


def strict(node):
    """Refuses unknown names; and takes what fits several kinds of payment methods, which share their fields."""
    if isinstance(node, dict):
        if "properties" in node and "additionalProperties" not in node and isinstance(node["properties"], dict):
            node["additionalProperties"] = False
        if "oneOf" in node:
            node["anyOf"] = node.pop("oneOf")
        for value in node.values():
            strict(value)
    elif isinstance(node, list):
        for value in node:
            strict(value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        description = json.load(file)
    strict(description["components"]["schemas"])
    for line in sys.stdin:
        asked = json.loads(line)
        schema = {"$ref": f"#/components/schemas/{asked['schema']}", "components": description["components"]}
        errors = [error.message for error in Draft202012Validator(schema).iter_errors(asked["request"])]
        print(errors[0].replace("\n", " ")[:200] if errors else "ok")


main()
