"""Reads rules of Prometheus with a parser that is not ours; prints how many there are."""
import sys

import promql_parser
import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
for rule in rules:
    try:
        promql_parser.parse(rule["expr"])
    except ValueError as error:
        sys.exit(f"{rule['alert']}: {error}")
    if not {"alert", "expr", "labels", "annotations"} <= rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}:
        sys.exit(f"{rule['alert']}: {sorted(rule)}")
print(len(rules))
