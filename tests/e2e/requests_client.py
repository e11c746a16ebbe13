"""Uses a key-value service as a Python program does: prints each answer's status and JSON."""

import json
import sys

import requests

service = sys.argv[1]
for answer in [
    requests.post(service, json={"foo": "bar", "count": 1, "list": [None, "é"]}),
    requests.post(service, data={"form": "a text", "n": "1"}),
    requests.get(f"{service}/foo"),
    requests.get(f"{service}/n"),
    requests.get(service),
    requests.get(service, params={"prefix": "fo"}),
    requests.delete(f"{service}/foo"),
    requests.delete(f"{service}/foo"),
    requests.get(f"{service}/foo"),
]:
    print(answer.status_code, json.dumps(answer.json(), ensure_ascii=False))
