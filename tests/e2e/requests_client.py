"""Uses a key-value service as a Python program does: prints each answer's status and JSON, or what is wrong."""

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
    requests.patch(f"{service}/foo", params={"ttl": 60}),
    requests.put(f"{service}/foo", headers={"Content-Type": "application/json"}),
    requests.delete(f"{service}/foo"),
    requests.delete(f"{service}/foo"),
    requests.get(f"{service}/foo"),
]:
    body = answer.json() if answer.ok else answer.json()["detail"]
    print(answer.status_code, json.dumps(body, ensure_ascii=False))
