"""An Azure Key Vault on 127.0.0.1 over TLS: RSA and AES keys with versions, enabling,
deletion and recovery, and the token endpoint of Entra ID.

azure_admin.py administers and checks it with the official client. Arguments: port,
certificate, key.

`POST /fake` sets {"permitted": BOOL, "denied": [VERB], "tokens": BOOL, "echo": BOOL}; "denied"
are operations that only the administrator may do ("get" among them), with "tokens" false every
token given so far is revoked, with "echo" every answer repeats what was asked.
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
import urllib.parse

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

port, cert, key = int(sys.argv[1]), *sys.argv[2:4]
keys, deleted = {}, {}
tokens = {"admin-token"}
settings = {"permitted": True, "denied": [], "echo": False}
lock = threading.Lock()
PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Failure(Exception):
    def __init__(self, status, code, message, inner=None):
        self.status, self.code, self.message, self.inner = status, code, message, inner


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode((text or "") + "=" * (-len(text or "") % 4))


def number(value):
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def add_version(name, kind):
    version = secrets.token_hex(16)
    made = {"kty": kind, "enabled": True}
    if kind.startswith("RSA"):
        made["key"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        made["key"] = AESGCM(AESGCM.generate_key(256))
    keys.setdefault(name, {})[version] = made
    return version


def bundle(name, version, store=None):
    made = (store or keys)[name][version]
    jwk = {"kid": kid(name, version), "kty": made["kty"], "key_ops": ["wrapKey", "unwrapKey", "sign", "verify"]}
    if made["kty"].startswith("RSA"):
        public = made["key"].public_key().public_numbers()
        jwk |= {"n": number(public.n), "e": number(public.e)}
    attributes = {"enabled": made["enabled"], "created": 1, "updated": 1}
    return {"key": jwk, "attributes": attributes}


def kid(name, version):
    return f"https://127.0.0.1:{port}/keys/{name}/{version}"


def operate(name, version, verb, body):
    made = keys[name][version]
    # As the service does: wrapping works with a disabled key.
    if not made["enabled"] and verb in ("unwrapkey", "decrypt", "sign", "verify"):
        raise Failure(
            403,
            "Forbidden",
            f"Operation {verb} is not allowed on a disabled key.",
            "KeyDisabled",
        )
    bad = Failure(400, "BadParameter", "The parameter is incorrect.")
    value = decode(body["value"])
    try:
        if verb == "sign" and body["alg"] == "PS256" and made["kty"].startswith("RSA"):
            signed = made["key"].sign(value, PSS, utils.Prehashed(hashes.SHA256()))
            return {"kid": kid(name, version), "value": encode(signed)}
        if verb in ("sign", "verify"):
            raise bad
        if body["alg"] == "RSA-OAEP-256" and made["kty"].startswith("RSA"):
            if verb in ("wrapkey", "encrypt"):
                return {"kid": kid(name, version), "value": encode(made["key"].public_key().encrypt(value, OAEP))}
            return {"kid": kid(name, version), "value": encode(made["key"].decrypt(value, OAEP))}
        if body["alg"] == "A256GCM" and made["kty"].startswith("oct"):
            aad = decode(body.get("aad"))
            if verb == "encrypt":
                iv = os.urandom(12)
                sealed = made["key"].encrypt(iv, value, aad)
                return {
                    "kid": kid(name, version),
                    "value": encode(sealed[:-16]),
                    "iv": encode(iv),
                    "tag": encode(sealed[-16:]),
                    "aad": encode(aad),
                }
            if verb == "decrypt":
                plain = made["key"].decrypt(decode(body["iv"]), value + decode(body["tag"]), aad)
                return {"kid": kid(name, version), "value": encode(plain)}
    except (InvalidTag, ValueError):
        raise bad
    raise bad


def handle(method, path, body):
    if match := re.fullmatch(r"/keys/([^/]+)/create", path):
        return bundle(match[1], add_version(match[1], body["kty"]))
    if match := re.fullmatch(r"/deletedkeys/([^/]+)(/recover)?", path):
        name = match[1]
        if name not in deleted:
            raise Failure(404, "KeyNotFound", f"Deleted Key not found: {name}")
        if match[2]:
            keys[name] = deleted.pop(name)
            return bundle(name, list(keys[name])[-1])
        if method == "DELETE":
            del deleted[name]
            return None
        shown = bundle(name, list(deleted[name])[-1], deleted)
        return shown | {"recoveryId": f"https://127.0.0.1:{port}/deletedkeys/{name}", "deletedDate": 1, "scheduledPurgeDate": 2}
    match = re.fullmatch(r"/keys/([^/]+)(?:/([^/]*))?(?:/(wrapkey|unwrapkey|encrypt|decrypt|sign|verify))?", path)
    if not match:
        raise Failure(404, "NotFound", "no such route")
    name, version, verb = match.groups()
    if name not in keys:
        raise Failure(
            404, "KeyNotFound", f"A key with (name/id) {name} was not found in this key vault."
        )
    version = version or list(keys[name])[-1]
    if version not in keys[name]:
        raise Failure(
            404,
            "KeyNotFound",
            f"A key with (name/id) {name}/{version} was not found in this key vault.",
        )
    if verb:
        return operate(name, version, verb, body)
    if method == "PATCH":
        keys[name][version]["enabled"] = body["attributes"]["enabled"]
    if method == "DELETE":
        shown = bundle(name, version)
        deleted[name] = keys.pop(name)
        return shown | {"recoveryId": f"https://127.0.0.1:{port}/deletedkeys/{name}", "deletedDate": 1, "scheduledPurgeDate": 2}
    return bundle(name, version)


def token(form):
    by_secret = form.get("client_secret") == "client-secret-of-the-tests"
    by_assertion = form.get("client_assertion") == "federated-token-of-the-tests" and (
        form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    )
    good = (
        form.get("grant_type") == "client_credentials"
        and form.get("client_id") == "client"
        and form.get("scope") == "https://vault.azure.net/.default"
        and (by_secret or by_assertion)
    )
    if not good:
        return 401, {
            "error": "invalid_client",
            "error_description": "AADSTS7000215: Invalid client secret provided.",
        }
    made = "eyJ0." + secrets.token_hex(16)
    tokens.add(made)
    return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": made}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, challenge=False):
        body = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if challenge:
            self.send_header(
                "www-authenticate",
                f'Bearer authorization="https://127.0.0.1:{port}/tenant", resource="https://vault.azure.net"',
            )
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urllib.parse.urlsplit(self.path)
        with lock:
            if url.path == "/tenant/oauth2/v2.0/token":
                return self.answer(*token(dict(urllib.parse.parse_qsl(raw.decode()))))
            body = json.loads(raw) if raw else {}
            if url.path == "/fake":
                if not body.pop("tokens", True):
                    tokens.intersection_update({"admin-token"})
                settings.update(body)
                return self.answer(200, {})
            if settings["echo"]:
                heard = f"{self.headers}{raw.decode()}"
                error = {"code": heard, "message": heard, "innererror": {"code": heard}}
                return self.answer(400, {"error": error})
            try:
                bearer = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                if bearer not in tokens and bearer != "metadata-token":
                    error = {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}
                    return self.answer(401, {"error": error}, challenge=True)
                if "api-version=" not in url.query:
                    raise Failure(400, "BadParameter", "api-version must be specified")
                if not settings["permitted"] and bearer != "admin-token":
                    raise Failure(
                        403,
                        "Forbidden",
                        "Caller is not authorized to perform action on resource.",
                        "ForbiddenByRbac",
                    )
                verb = url.path.split("/")[4:] or [{"GET": "get"}.get(self.command)]
                if verb[0] in settings["denied"] and bearer != "admin-token":
                    raise Failure(
                        403,
                        "Forbidden",
                        "Caller is not authorized to perform action on resource.",
                        "ForbiddenByRbac",
                    )
                answer = handle(self.command, url.path, body)
                self.answer(204 if answer is None else 200, answer)
            except Failure as failure:
                error = {"code": failure.code, "message": failure.message}
                if failure.inner:
                    error["innererror"] = {"code": failure.inner}
                self.answer(failure.status, {"error": error})

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
