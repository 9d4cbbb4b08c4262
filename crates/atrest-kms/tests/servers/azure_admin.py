"""The administrator of an Azure Key Vault: reads {"call", "with"} as JSON lines, makes the
call with the official client, and answers {"ok": ...} or {"error": CODE} as a JSON line.

Arguments: vault URL and CA file.
"""

import base64
import json
import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import (
    CryptographyClient,
    EncryptionAlgorithm,
    KeyWrapAlgorithm,
    SignatureAlgorithm,
)

vault, ca = sys.argv[1:3]
options = {"verify_challenge_resource": False, "connection_verify": ca}


class Credential:
    def get_token(self, *scopes, **kwargs):
        return AccessToken("admin-token", int(time.time()) + 3600)


client = KeyClient(vault, Credential(), **options)


def crypto(kid):
    # By URL, so that every operation is the service's and none is done locally.
    return CryptographyClient(kid, Credential(), **options)


def call(name, a):
    if name == "rsa":
        return client.create_rsa_key(a["name"], size=2048).id
    if name == "oct":
        return client.create_oct_key(a["name"], size=256, hardware_protected=True).id
    if name == "enable":
        return client.update_key_properties(a["name"], enabled=a["enabled"]).properties.enabled
    if name == "delete":
        return client.begin_delete_key(a["name"]).result().name
    if name == "recover":
        return client.begin_recover_deleted_key(a["name"]).result().name
    if name == "purge":
        return client.purge_deleted_key(a["name"])
    if name == "wrap":
        result = crypto(a["kid"]).wrap_key(KeyWrapAlgorithm.rsa_oaep_256, bytes.fromhex(a["key"]))
        return {"kid": result.key_id, "value": result.encrypted_key.hex()}
    if name == "unwrap":
        result = crypto(a["kid"]).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, bytes.fromhex(a["value"]))
        return result.key.hex()
    if name == "verify":
        digest, signature = bytes.fromhex(a["digest"]), bytes.fromhex(a["signature"])
        return crypto(a["kid"]).verify(SignatureAlgorithm.ps256, digest, signature).is_valid
    if name == "sign":
        signed = crypto(a["kid"]).sign(SignatureAlgorithm.ps256, bytes.fromhex(a["digest"]))
        return signed.signature.hex()
    if name == "decrypt":
        parts = {part: bytes.fromhex(a[part]) for part in ("value", "iv", "tag", "aad")}
        return (
            crypto(a["kid"])
            .decrypt(
                EncryptionAlgorithm.a256_gcm,
                parts["value"],
                iv=parts["iv"],
                authentication_tag=parts["tag"],
                additional_authenticated_data=parts["aad"],
            )
            .plaintext.hex()
        )
    raise ValueError(name)


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": call(request["call"], request["with"])}
    except HttpResponseError as error:
        inner = error.error.innererror if error.error is not None else None
        answer = {"error": f"{error.status_code} {inner} {error.message}"}
    print(json.dumps(answer), flush=True)
