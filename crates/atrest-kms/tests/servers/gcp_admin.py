"""The administrator of a Google Cloud KMS: reads {"call", "with"} as JSON lines, makes the
call with Google's own client, and answers {"ok": ...} or {"error": CODE} as a JSON line.

Arguments: endpoint. REQUESTS_CA_BUNDLE names the CA.
"""

import base64
import json
import sys

import google_crc32c
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import kms
from google.oauth2.credentials import Credentials

client = kms.KeyManagementServiceClient(
    credentials=Credentials(token="admin-token"),
    transport="rest",
    client_options=ClientOptions(api_endpoint=sys.argv[1]),
)
State = kms.CryptoKeyVersion.CryptoKeyVersionState


def set_state(name, state):
    version = kms.CryptoKeyVersion(name=name, state=State[state])
    request = {"crypto_key_version": version, "update_mask": {"paths": ["state"]}}
    return client.update_crypto_key_version(request=request).state.name


def call(name, a):
    if name == "ring":
        return client.create_key_ring(
            request={"parent": a["parent"], "key_ring_id": a["id"], "key_ring": {}}
        ).name
    if name == "key":
        key = {"purpose": kms.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT}
        return client.create_crypto_key(
            request={"parent": a["parent"], "crypto_key_id": a["id"], "crypto_key": key}
        ).name
    if name == "rotate":
        made = client.create_crypto_key_version(
            request={"parent": a["key"], "crypto_key_version": {}}
        )
        number = made.name.rsplit("/", 1)[1]
        client.update_crypto_key_primary_version(
            request={"name": a["key"], "crypto_key_version_id": number}
        )
        return made.name
    if name == "state":
        return set_state(a["version"], a["state"])
    if name == "destroy":
        return client.destroy_crypto_key_version(request={"name": a["version"]}).state.name
    if name == "restore":
        client.restore_crypto_key_version(request={"name": a["version"]})
        return set_state(a["version"], "ENABLED")
    if name == "encrypt":
        data, aad = base64.b64decode(a["plaintext"]), base64.b64decode(a["aad"])
        answer = client.encrypt(
            request={
                "name": a["key"],
                "plaintext": data,
                "additional_authenticated_data": aad,
                "plaintext_crc32c": google_crc32c.value(data),
                "additional_authenticated_data_crc32c": google_crc32c.value(aad),
            }
        )
        assert answer.verified_plaintext_crc32c
        assert answer.verified_additional_authenticated_data_crc32c
        assert google_crc32c.value(answer.ciphertext) == answer.ciphertext_crc32c
        return base64.b64encode(answer.ciphertext).decode()
    if name == "decrypt":
        data, aad = base64.b64decode(a["ciphertext"]), base64.b64decode(a["aad"])
        answer = client.decrypt(
            request={
                "name": a["key"],
                "ciphertext": data,
                "additional_authenticated_data": aad,
                "ciphertext_crc32c": google_crc32c.value(data),
            }
        )
        assert google_crc32c.value(answer.plaintext) == answer.plaintext_crc32c
        return base64.b64encode(answer.plaintext).decode()
    raise ValueError(name)


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": call(request["call"], request["with"])}
    except GoogleAPICallError as error:
        answer = {"error": f"{type(error).__name__}: {error.message}"}
    print(json.dumps(answer), flush=True)
