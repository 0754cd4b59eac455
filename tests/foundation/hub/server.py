"""A Hub on this machine: the routes that huggingface_hub really uses, over real sockets, with faults on demand.

Two servers: the Hub itself, and the storage ("CDN") on another port, which is another origin, as on the real Hub. Files
that end in .safetensors are large files (LFS): named by their sha256 and served by a redirect to the storage; others
are git blobs. Nothing is advertised as Xet. Commits are atomic: the whole NDJSON is read and checked before anything
changes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

READ_TOKEN = "hf_reads"
WRITE_TOKEN = "hf_writes"
BLOCK = 1 << 16


def git_blob(content: bytes) -> str:
    """The name git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


@dataclass
class Repository:
    """Its commits and branches; the first commit holds only .gitattributes, as on the Hub."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put a new commit with exactly these files on a branch."""
        seed = json.dumps([len(self.commits), sorted((k, sha256(v)) for k, v in files.items())])
        name = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name

    def find(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit (its first digits are enough)."""
        if revision in self.refs:
            return self.refs[revision]
        found = [name for name in self.commits if len(revision) >= 7 and name.startswith(revision)]
        return found[0] if found else None


@dataclass
class Fault:
    """What goes wrong with a file's content, `times` times.

    kind: "cut" closes the line after `after` bytes; "hang" keeps it open without sending; "short" claims a shorter
    length; "corrupt" turns a byte over; "status" answers with `status`; "slow" waits `seconds` first; "whole" ignores
    the Range that was asked for.
    """

    kind: str
    after: int = 0
    times: int = 1_000_000
    status: int = 503
    seconds: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A request as it arrived: `where` is "hub" or "storage"."""

    where: str
    method: str
    path: str
    headers: dict[str, str]


class LocalHub:
    """The state behind the two servers; tests look into it and change it."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # large files, by sha256
        self.faults: dict[str, Fault] = {}  # by the end of a path; "api" for the listing, "upload" for a PUT
        self.seen: list[Seen] = []
        self.stop_waiting = threading.Event()
        self.lock = threading.Lock()
        self.address = self.storage = ""

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main", **settings: bool) -> str:
        """Make a repository, or a new commit in it; returns the commit."""
        repository = self.repositories.setdefault(repo, Repository(**settings))
        for path, content in files.items():
            if is_large(path):
                self.objects[sha256(content)] = content
        return repository.commit(files, branch)

    def requests(self, method: str, part: str) -> list[Seen]:
        """Requests by method whose path contains `part`."""
        return [seen for seen in self.seen if seen.method == method and part in seen.path]

    def fault(self, path: str) -> Fault | None:
        """The fault that is due for a path, counted down."""
        with self.lock:
            for ending, fault in self.faults.items():
                if path.endswith(ending) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LocalHub
    where: str

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    # -- answers ------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str) -> None:
        self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip() or None

    # -- routes -------------------------------------------------------------------------------------------------

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        path, query = url.path, parse_qs(url.query)
        self.hub.seen.append(Seen(self.where, self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        for pattern, action in STORAGE_ROUTES if self.where == "storage" else HUB_ROUTES:
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                return action(self, *(unquote(part or "") for part in match.groups()), query=query)
        return self.refuse(404, "", "no such route")

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - names of http.server

    def opened(self, repo: str) -> Repository | None:
        """The repository if the token opens it; else the refusal has been sent."""
        repository, token = self.hub.repositories.get(repo), self.token()
        if token not in (None, READ_TOKEN, WRITE_TOKEN):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and token is None):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def at(self, repo: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.opened(repo)
        if repository is None:
            return None
        commit = repository.find(revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository, commit

    def info(self, repo: str, revision: str, query: dict[str, list[str]]) -> None:
        fault = self.hub.fault("api")
        if fault is not None:
            time.sleep(fault.seconds)
            if fault.kind == "status":
                return self.refuse(fault.status, "", "out of order")
        found = self.at(repo, revision or "main")
        if found is None:
            return None
        repository, commit = found
        siblings = []
        for path, content in repository.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": path}
            if "blobs" in query:
                entry |= {"size": len(content), "blobId": git_blob(content)}
                if is_large(path):
                    entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return self.reply_json(
            {"id": repo, "modelId": repo, "sha": commit, "private": repository.private, "siblings": siblings}
        )

    def tree(self, repo: str, revision: str, query: dict[str, list[str]]) -> None:
        found = self.at(repo, revision)
        if found is None:
            return None
        entries = []
        for path, content in found[0].commits[found[1]].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
            if is_large(path):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return self.reply_json(entries)

    def resolve(self, repo: str, revision: str, path: str, query: dict[str, list[str]]) -> None:
        found = self.at(repo, revision)
        if found is None:
            return None
        repository, commit = found
        if repository.gated and self.token() != WRITE_TOKEN:
            return self.refuse(403 if self.token() else 401, "GatedRepo", f"Access to model {repo} is restricted")
        content = repository.commits[commit].get(path)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if is_large(path):
            digest = sha256(content)
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "ETag": '"pointer"'}
            return self.reply(302, b"", {**headers, "Location": f"{self.hub.storage}/files/{digest}/{path}"})
        return self.send_content(path, content, {**headers, "ETag": f'"{git_blob(content)}"'})

    def stored(self, digest: str, path: str, query: dict[str, list[str]]) -> None:
        self.send_content(path, self.hub.objects[digest], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"})

    def send_content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Content, from where it was asked for, with whatever fault is due."""
        if self.command == "HEAD":
            return self.reply(200, b"", {**headers, "Content-Length": str(len(content))})
        fault = self.hub.fault(path) or Fault("none")
        time.sleep(fault.seconds)
        if fault.kind == "status":
            return self.refuse(fault.status, "", "out of order")
        start, whole = 0, len(content)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and fault.kind != "whole":
            start = int(asked[1])
            if start >= whole:
                return self.reply(416, b"", {"Content-Range": f"bytes */{whole}"})
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        sent = content[start:]
        if fault.kind == "corrupt":
            sent = sent[:-1] + bytes([sent[-1] ^ 1])
        if fault.kind == "short":
            sent = sent[: fault.after]
            if "Content-Range" in headers:
                headers["Content-Range"] = f"bytes {start}-{start + len(sent) - 1}/{whole}"
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in {**headers, "Content-Length": str(len(sent))}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault.kind not in ("cut", "hang"):
            self.wfile.write(sent)
            return None
        for at in range(0, fault.after, BLOCK):
            self.wfile.write(sent[at : min(at + BLOCK, fault.after)])
        self.wfile.flush()
        if fault.kind == "hang":
            self.hub.stop_waiting.wait(60)
        self.close_connection = True
        return None

    # -- uploading ----------------------------------------------------------------------------------------------

    def writable(self) -> bool:
        if self.token() == WRITE_TOKEN:
            return True
        self.body()
        if self.token() is None:
            self.refuse(401, "", "Invalid username or password.")
        else:
            self.refuse(403, "", "You don't have the rights to create a model under this namespace")
        return False

    def create(self, query: dict[str, list[str]]) -> None:
        if not self.writable():
            return None
        asked = json.loads(self.body())
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.repositories:
            return self.reply_json({"error": "You already created this model repo"}, 409)
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.add(repo, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return self.reply_json({"url": f"{self.hub.address}/{repo}", "name": repo})

    def validate(self, query: dict[str, list[str]]) -> None:
        self.body()
        self.reply_json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str, query: dict[str, list[str]]) -> None:
        if not self.writable() or (found := self.at(repo, revision)) is None:
            return None
        repository, commit = found
        here = repository.commits[commit]
        files = []
        for item in json.loads(self.body())["files"]:
            path = item["path"]
            content = here.get(path)
            oid = None if content is None else sha256(content) if is_large(path) else git_blob(content)
            mode = "lfs" if is_large(path) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self.reply_json({"files": files})

    def batch(self, repo: str, query: dict[str, list[str]]) -> None:
        if not self.writable():
            return None
        objects = []
        for item in json.loads(self.body())["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.storage}/upload/{item['oid']}"}}
            objects.append(entry)
        return self.reply_json({"transfer": "basic", "objects": objects})

    def upload(self, digest: str, query: dict[str, list[str]]) -> None:
        fault = self.hub.fault("upload")
        length = int(self.headers["Content-Length"])
        if fault is not None and fault.kind == "hang":
            self.rfile.read(min(fault.after, length))
            self.hub.stop_waiting.wait(60)
            self.close_connection = True
            return None
        content = self.rfile.read(length)
        if len(content) != length or sha256(content) != digest:
            return self.refuse(400, "", "The content is not what was announced")
        self.hub.objects[digest] = content
        return self.reply(200)

    def commit(self, repo: str, revision: str, query: dict[str, list[str]]) -> None:
        if not self.writable() or (found := self.at(repo, revision)) is None:
            return None
        repository, parent = found
        lines = [json.loads(line) for line in self.body().splitlines() if line]
        files = dict(repository.commits[parent])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit") not in (None, parent):
                    return self.refuse(412, "", "A commit has happened since")
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.refuse(400, "", f"LFS pointer to a file that does not exist: {value['path']}")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
        name = repository.commit(files, revision)
        return self.reply_json({"commitUrl": f"{self.hub.address}/{repo}/commit/{name}", "commitOid": name})


REPO = r"([\w.-]+/[\w.-]+)"
HUB_ROUTES = [
    (rf"GET /api/models/{REPO}(?:/revision/([^/]+))?", _Handler.info),
    (rf"GET /api/models/{REPO}/tree/([^/]+)", _Handler.tree),
    (rf"(?:GET|HEAD) /{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{REPO}/preupload/([^/]+)", _Handler.preupload),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"POST /api/models/{REPO}/commit/([^/]+)", _Handler.commit),
]
STORAGE_ROUTES = [
    (r"(?:GET|HEAD) /files/([0-9a-f]{64})/(.+)", _Handler.stored),
    (r"PUT /upload/([0-9a-f]{64})", _Handler.upload),
]


@contextmanager
def running_hub() -> Iterator[LocalHub]:
    """A Hub that listens on this machine as long as the context lasts."""
    hub = LocalHub()
    servers = []
    for where in ("hub", "storage"):
        handler = type("Handler", (_Handler,), {"hub": hub, "where": where})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
    hub.address, hub.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        hub.stop_waiting.set()
        for server in servers:
            server.shutdown()
            server.server_close()
