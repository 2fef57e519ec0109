"""A Hugging Face Hub on loopback: a folder served as the repository acme/tiny."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "acme/tiny"


@dataclass
class Hub:
    """What is served, what was asked, and how the server misbehaves.

    The first `num_cuts` answers that reach that far are cut off `cut_after` bytes into their file.
    `broken` is a file that is never sent. `token`, where set, must be sent.
    """

    folder: Path
    url: str = ""
    token: str | None = None
    cut_after: int = 0
    num_cuts: int = 0
    broken: Path | None = None
    requests: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.hub, self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
            self._json(401, {"error": "log in"}, {"X-Error-Code": "RepoNotFound"})
        elif re.fullmatch(rf"/api/models/{REPO}(/revision/main)?", path):
            files = [{"rfilename": str(p.relative_to(hub.folder))} for p in _files(hub)]
            self._json(200, {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": files})
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            self._json(200, [_entry(hub, p) for p in _files(hub)])
        elif match := re.fullmatch(rf"/{REPO}/resolve/(?:main|{COMMIT})/(.+)", path):
            self._file(hub.folder / match[1])
        else:
            self._json(404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})

    def _json(self, status: int, value: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _file(self, path: Path) -> None:
        if path == self.hub.broken and self.command == "GET":
            self._json(503, {"error": "later"})
            return
        if not path.is_file():
            self._json(404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        if start:
            self.hub.ranges.append(f"{path.name} from {start}")
        rest = content[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command == "GET":
            self._send(rest, max(0, self.hub.cut_after - start))

    def _send(self, content: bytes, most: int) -> None:
        if self.hub.num_cuts and len(content) > most > 0:
            self.hub.num_cuts -= 1
            self.wfile.write(content[:most])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(content)


def _files(hub: Hub) -> list[Path]:
    return sorted(path for path in hub.folder.rglob("*") if path.is_file())


def _entry(hub: Hub, path: Path) -> dict[str, object]:
    oid = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
    name = str(path.relative_to(hub.folder))
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": oid}
