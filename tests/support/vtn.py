"""A small VTN of OpenADR 3 on loopback, for tests: events, reports, and tokens of client credentials."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from openadr3.entities.raw import RawEvent, RawReport


class Vtn:
    """The state of the server: what it lists, what it was sent, and how it fails."""

    def __init__(self):
        self.events = []
        self.reports = []
        self.tokens = 0
        self.asked = 0
        self.status = 200
        self.takes_reports = True
        self.script = {}
        """What happens at the n-th question for the first page of events: a function of the VTN."""

    def list(self, *events):
        """List events, each as the library of another sees it valid."""
        self.events = [
            RawEvent.model_validate(e).model_dump(by_alias=True, exclude_none=True) | e for e in events
        ]


@contextmanager
def vtn():
    """A running VTN, and its address."""
    state = Vtn()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status, content):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _allowed(self):
            if self.headers.get("Authorization") == f"Bearer token-{state.tokens}" and state.tokens:
                return True
            self._answer(401, {"title": "no valid token"})
            return False

        def do_GET(self):
            parts = urlsplit(self.path)
            if parts.path == "/auth/server":
                return self._answer(200, {"tokenURL": f"http://{self.headers['Host']}/auth/token"})
            if not self._allowed():
                return None
            query = {key: int(values[0]) for key, values in parse_qs(parts.query).items()}
            if query.get("skip", 0) == 0:
                state.script.get(state.asked, lambda vtn: None)(state)
                state.asked += 1
            if state.status != 200:
                return self._answer(state.status, b"no JSON")
            skip = query.get("skip", 0)
            return self._answer(200, state.events[skip : skip + query.get("limit", 50)])

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if self.path == "/auth/token":
                given = parse_qs(body)
                if given["client_id"] == ["me"] and given["client_secret"] == ["hush"]:
                    state.tokens += 1
                    return self._answer(200, {"access_token": f"token-{state.tokens}"})
                return self._answer(403, {"title": "wrong secret"})
            if not self._allowed():
                return None
            if not state.takes_reports:
                return self._answer(400, {"title": "no"})
            report = json.loads(body)
            RawReport.model_validate(report)
            state.reports.append(report)
            return self._answer(201, report | {"id": str(len(state.reports))})

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
