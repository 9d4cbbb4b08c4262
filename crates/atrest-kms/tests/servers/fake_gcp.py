"""A Google Cloud KMS on 127.0.0.1 over TLS: key rings, keys, versions and their states,
AES-GCM with AAD, checksums, bearer tokens, and the token endpoint of service accounts.

gcp_admin.py administers and checks it with Google's own client. Arguments: port, certificate, key, and
the public key (PEM) of the one service account.

`POST /fake` sets {"permitted": BOOL, "tokens": BOOL, "corrupt": FIELD or null,
"destroy": VERSION_NAME}; with "tokens" false every token given so far is revoked.
"""

import base64
import http.server
import json
import os
import re
import secrets
import ssl
import sys
import threading
import time
import urllib.parse

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

port, cert, key, public_key = int(sys.argv[1]), *sys.argv[2:5]
account_key = serialization.load_pem_public_key(open(public_key, "rb").read())
rings, keys, versions = {}, {}, {}
tokens = {"admin-token"}
settings = {"permitted": True, "corrupt": None}
lock = threading.Lock()

KEY = r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/:]+"


class Failure(Exception):
    def __init__(self, code, status, message):
        self.code, self.status, self.message = code, status, message


def crc(data):
    return google_crc32c.value(data)


def checked(body, field):
    """The bytes of a field, whose checksum must be right where it is given."""
    data = base64.b64decode(body.get(field) or "")
    expected = body.get(field + "Crc32c")
    if expected is not None and int(expected) != crc(data):
        raise Failure(400, "INVALID_ARGUMENT", f"The checksum in field {field}_crc32c did not match.")
    return data, expected is not None


def version_of(name, number):
    return versions[f"{name}/cryptoKeyVersions/{number}"]


def must_be_enabled(version):
    if version["state"] != "ENABLED":
        raise Failure(
            400,
            "FAILED_PRECONDITION",
            f"{version['name']} is not enabled, current state is: {version['state']}.",
        )


def shown(version):
    return {name: version[name] for name in ("name", "state", "algorithm", "protectionLevel")}


def add_version(name):
    number = 1 + sum(1 for other in versions if other.startswith(name + "/"))
    version = {
        "name": f"{name}/cryptoKeyVersions/{number}",
        "state": "ENABLED",
        "algorithm": "GOOGLE_SYMMETRIC_ENCRYPTION",
        "protectionLevel": "SOFTWARE",
        "material": AESGCM(AESGCM.generate_key(256)),
        "id": secrets.token_bytes(8),
    }
    versions[version["name"]] = version
    return version


def encrypt(name, body):
    key = keys[name]
    version = versions[key["primary"]]
    must_be_enabled(version)
    plaintext, with_crc = checked(body, "plaintext")
    aad, with_aad_crc = checked(body, "additionalAuthenticatedData")
    iv = os.urandom(12)
    ciphertext = version["id"] + iv + version["material"].encrypt(iv, plaintext, aad)
    return {
        "name": version["name"],
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "ciphertextCrc32c": str(crc(ciphertext)),
        "verifiedPlaintextCrc32c": with_crc,
        "verifiedAdditionalAuthenticatedDataCrc32c": with_aad_crc,
        "protectionLevel": "SOFTWARE",
    }


def decrypt(name, body):
    ciphertext, _ = checked(body, "ciphertext")
    aad, _ = checked(body, "additionalAuthenticatedData")
    for version in versions.values():
        if version["name"].startswith(name + "/") and ciphertext[:8] == version["id"]:
            must_be_enabled(version)
            try:
                plaintext = version["material"].decrypt(ciphertext[8:20], ciphertext[20:], aad)
            except (InvalidTag, ValueError):
                break
            return {
                "plaintext": base64.b64encode(plaintext).decode(),
                "plaintextCrc32c": str(crc(plaintext)),
                "usedPrimary": version["name"] == keys[name]["primary"],
                "protectionLevel": "SOFTWARE",
            }
    raise Failure(
        400,
        "INVALID_ARGUMENT",
        "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
    )


def key_answer(name):
    return {"name": name, "purpose": "ENCRYPT_DECRYPT", "primary": shown(versions[keys[name]["primary"]])}


def handle(method, path, query, body):
    if match := re.fullmatch(r"(projects/[^/]+/locations/[^/]+)/keyRings", path):
        name = f"{match[1]}/keyRings/{query['keyRingId']}"
        rings[name] = True
        return {"name": name}
    if match := re.fullmatch(r"(projects/[^/]+/locations/[^/]+/keyRings/[^/]+)/cryptoKeys", path):
        name = f"{match[1]}/cryptoKeys/{query['cryptoKeyId']}"
        if match[1] not in rings:
            raise Failure(404, "NOT_FOUND", f"KeyRing {match[1]} not found.")
        keys[name] = {}
        keys[name]["primary"] = add_version(name)["name"]
        return key_answer(name)
    match = re.fullmatch(rf"({KEY})(/cryptoKeyVersions(?:/(\d+))?)?(?::(\w+))?", path)
    if not match:
        raise Failure(404, "NOT_FOUND", "no such route")
    name, numbered, number, verb = match.groups()
    if name not in keys:
        raise Failure(404, "NOT_FOUND", f"CryptoKey {name} not found.")
    if verb in ("encrypt", "decrypt") and not numbered:
        return encrypt(name, body) if verb == "encrypt" else decrypt(name, body)
    if verb == "updatePrimaryVersion":
        keys[name]["primary"] = version_of(name, body["cryptoKeyVersionId"])["name"]
        return key_answer(name)
    if numbered and not number and method == "POST":
        return shown(add_version(name))
    if number:
        version = version_of(name, number)
        if method == "PATCH":
            # Google's client sends enumerations as numbers.
            names = {1: "ENABLED", 2: "DISABLED"}
            version["state"] = names.get(body["state"], body["state"])
        elif verb == "destroy":
            version["state"] = "DESTROY_SCHEDULED"
        elif verb == "restore":
            version["state"] = "DISABLED"
        return shown(version)
    return key_answer(name)


def token(form):
    """RFC 7523: the assertion must be signed by the account, for this endpoint, now."""
    try:
        signed, _, signature = form["assertion"].rpartition(".")
        decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        account_key.verify(decode(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        header, claims = (json.loads(decode(part)) for part in signed.split("."))
        assert header["alg"] == "RS256" and header["kid"] == "key-id"
        assert claims["iss"] == "tester@project.iam.gserviceaccount.com"
        assert claims["aud"].endswith(f":{port}/token")
        assert claims["scope"].startswith("https://www.googleapis.com/auth/cloud")
        assert claims["iat"] <= time.time() + 10 < claims["exp"] <= claims["iat"] + 3600
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    except Exception as error:
        return 400, {"error": "invalid_grant", "error_description": f"Invalid JWT: {type(error).__name__}"}
    made = "ya29." + secrets.token_hex(16)
    tokens.add(made)
    return 200, {"access_token": made, "expires_in": 3599, "token_type": "Bearer"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body):
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        with lock:
            if path == "/token":
                form = dict(urllib.parse.parse_qsl(raw.decode()))
                return self.answer(*token(form))
            body = json.loads(raw) if raw else {}
            if path == "/fake":
                if not body.pop("tokens", True):
                    tokens.intersection_update({"admin-token"})
                if destroyed := body.pop("destroy", None):
                    versions[destroyed]["state"] = "DESTROYED"
                settings.update(body)
                return self.answer(200, {})
            try:
                bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                if bearer not in tokens and bearer != "metadata-token":
                    raise Failure(
                        401,
                        "UNAUTHENTICATED",
                        "Request had invalid authentication credentials.",
                    )
                if not settings["permitted"] and bearer != "admin-token":
                    raise Failure(
                        403, "PERMISSION_DENIED", "Permission 'useToDecrypt' denied on resource."
                    )
                query = dict(urllib.parse.parse_qsl(url.query))
                answer = handle(self.command, path.removeprefix("/v1/"), query, body)
                if settings["corrupt"] in answer:
                    answer[settings["corrupt"]] = {
                        bool: lambda old: False,
                        str: lambda old: str(int(old) ^ 1),
                    }[type(answer[settings["corrupt"]])](answer[settings["corrupt"]])
                self.answer(200, answer)
            except Failure as failure:
                error = {
                    "code": failure.code,
                    "status": failure.status,
                    "message": failure.message,
                }
                self.answer(failure.code, {"error": error})

    do_GET = do_POST = do_PATCH = handle_any

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
