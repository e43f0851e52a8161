"""The part of the hub's HTTP API that pushing and loading a model uses, in memory on the loopback device."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the server holds, and what it was asked."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.requests: list[str] = []
        self.url = ""


@contextmanager
def serve(token: str):
    """A hub that lets this token write."""
    hub = Hub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, value: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps({} if value is None else value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _may_write(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._answer({"error": f"Invalid credentials: {self.headers.get('Authorization')}"}, 401)
        return False

    def do_POST(self) -> None:
        body = self._body()
        self.hub.requests.append(f"POST {self.path}")
        if not self._may_write():
            return
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.hub.repositories:
                told = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
                return self._answer(told, 409)
            self.hub.created.append(asked)
            self.hub.repositories[name] = {}
            return self._answer({"url": f"{self.hub.url}/{name}", "name": name})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            return self._answer({"transfer": "basic", "objects": [self._upload(each) for each in objects]})
        _, _, owner, name, kind, _ = self.path.lstrip("/").split("/")
        files = self.hub.repositories.get(f"{owner}/{name}")
        if files is None:
            return self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if kind == "preupload":
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        assert kind == "commit", self.path
        return self._commit(f"{owner}/{name}", files, [json.loads(line) for line in body.splitlines()])

    def _upload(self, each: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.url}/objects/{each['oid']}"
        return {**each, "actions": {"upload": {"href": href}}}

    def do_PUT(self) -> None:
        self.hub.requests.append(f"PUT {self.path}")
        body, oid = self._body(), self.path.rsplit("/", 1)[1]
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer({"error": "hash"}, 400)
        self.hub.objects[oid] = body
        return self._answer()

    def _commit(self, name: str, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                assert line["key"] == "header", line
                self.hub.commits.append(value["summary"])
        oid = self._head(name)
        self._answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _head(self, name: str) -> str:
        return hashlib.sha1(f"{name}/{len(self.hub.commits)}".encode()).hexdigest()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        owner, name, *rest = self.path.lstrip("/").split("?")[0].split("/")
        found = self.hub.repositories.get(f"{owner}/{name}", {}).get("/".join(rest[2:]))
        if rest[:1] != ["resolve"] or found is None:
            return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha256(found).hexdigest()}"'
        return self._answer(found, headers={"ETag": etag, "X-Repo-Commit": self._head(f"{owner}/{name}")})
