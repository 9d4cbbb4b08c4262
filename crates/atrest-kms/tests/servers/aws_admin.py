"""The administrator of an AWS emulator: reads {"service", "call", "with"} as JSON lines,
makes the call with boto3, and answers {"ok": ...} or {"error": CODE} as a JSON line.

Arguments: endpoint, key id, secret key.
"""

import json
import sys

import boto3
from botocore.exceptions import ClientError

endpoint, key_id, secret_key = sys.argv[1:4]
clients = {}


def client(service):
    if service not in clients:
        clients[service] = boto3.client(
            service,
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=key_id,
            aws_secret_access_key=secret_key,
        )
    return clients[service]


for line in sys.stdin:
    request = json.loads(line)
    try:
        call = getattr(client(request["service"]), request["call"])
        answer = {"ok": call(**request["with"])}
    except ClientError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer, default=str), flush=True)
