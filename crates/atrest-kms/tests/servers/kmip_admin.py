"""The administrator of a KMIP server: reads {"call", "with"} as JSON lines, makes the call
with PyKMIP's client, and answers {"ok": ...} or {"error": ...} as a JSON line.

Arguments: port, and the PEM files of CA, client certificate and client key.
"""

import json
import secrets
import sys

from kmip import enums
from kmip.pie.client import ProxyKmipClient
from kmip.pie.objects import SymmetricKey

port, ca, cert, key = sys.argv[1:5]
masks = {"encrypt": enums.CryptographicUsageMask.ENCRYPT, "decrypt": enums.CryptographicUsageMask.DECRYPT}


def call(client, name, arguments):
    if name == "create":
        usages = [masks[usage] for usage in arguments["usages"]]
        # Registered, since the client's own create always adds Encrypt and Decrypt.
        value = secrets.token_bytes(32)
        return client.register(
            SymmetricKey(enums.CryptographicAlgorithm.AES, 256, value, masks=usages)
        )
    if name == "activate":
        return client.activate(arguments["uid"])
    if name == "revoke":
        return client.revoke(enums.RevocationReasonCode[arguments["reason"]], arguments["uid"])
    if name == "destroy":
        return client.destroy(arguments["uid"])
    raise ValueError(name)


for line in sys.stdin:
    request = json.loads(line)
    try:
        # A connection each: the server closes idle ones.
        with ProxyKmipClient(
            hostname="127.0.0.1",
            port=int(port),
            ca=ca,
            cert=cert,
            key=key,
            config_file="/dev/null",
            kmip_version=enums.KMIPVersion.KMIP_1_4,
        ) as client:
            answer = {"ok": call(client, request["call"], request["with"])}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
