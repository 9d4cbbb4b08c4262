"""The metadata services of instances and containers: AWS IMDSv2 and ECS, Google and Azure.

`PUT /set` takes {"PATH": ANSWER} as JSON; `GET /requests` counts the others' requests.
Arguments: port.
"""

import http.server
import json
import sys
import threading

answers = {}
requests = 0
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, body):
        if not isinstance(body, str):
            body = json.dumps(body)
        body = body.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_any(self):
        global requests
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        path = self.path.split("?")[0]
        if path == "/set":
            answers.update(json.loads(body))
            return self.answer(200, {})
        if path == "/requests":
            return self.answer(200, {"requests": requests})
        with lock:
            requests += 1
        if path == "/latest/api/token":
            if self.command != "PUT" or "x-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                return self.answer(400, "")
            return self.answer(200, "imds-token")
        if path.startswith("/latest/") and self.headers.get("x-aws-ec2-metadata-token") != "imds-token":
            return self.answer(401, "")
        token = answers.get("/container-token", "container-token")
        if path == "/container" and self.headers.get("authorization") != token:
            return self.answer(401, "")
        if path.startswith("/computeMetadata/") and self.headers.get("metadata-flavor") != "Google":
            return self.answer(403, "")
        if path.startswith("/metadata/identity/") and self.headers.get("metadata") != "true":
            return self.answer(400, "")
        if path not in answers:
            return self.answer(404, "")
        return self.answer(200, answers[path])

    do_GET = do_PUT = do_POST = handle_any

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
