"""OCI layouts out of a folder, written by hand: one plain tar layer, a config, a manifest, an index."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from rootfs import build_root

from freehold.runtime.images.importing import host_architecture

MEDIA = "application/vnd.oci.image."
PORT = 8080

# What the test image runs: `/` and `/healthz` answer, and what is posted to `/python` is run; its output comes back.
SERVER = f"""
import contextlib, http.server, io, os, signal, socket, sys, traceback
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def answer(self, status, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        if self.headers["User-Agent"] == "freehold":
            print("probed", self.path, flush=True)
        known = {{"/": f"hello from {{socket.gethostname()}}\\n", "/healthz": "ok\\n"}}
        self.answer(200 if self.path in known else 404, known.get(self.path, "no such page\\n"))
    def do_POST(self):
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                exec(code, {{"__name__": "posted"}})
            self.answer(200, out.getvalue())
        except BaseException:
            self.answer(500, traceback.format_exc())
print("serving", flush=True)
http.server.ThreadingHTTPServer(("", int(sys.argv[1]) if len(sys.argv) > 1 else {PORT}), Handler).serve_forever()
"""
CONFIG: dict[str, Any] = {
    "Cmd": ["/bin/python3", "-IS", "/srv/serve.py"],
    "Env": ["IMAGE_WORD=from-the-image", "PATH=/bin:/usr/bin"],
    "WorkingDir": "/srv",
}


def build_layout(folder: Path) -> Path:
    """Build the test image: shell, coreutils, Python and the server above, as an OCI layout in `folder`/layout."""
    root = folder / "root"
    build_root(root)
    (root / "srv").mkdir()
    (root / "srv/serve.py").write_text(SERVER)
    layout = write_layout(folder / "layout", root, CONFIG)
    shutil.rmtree(root)
    return layout


def write_layout(layout: Path, root: Path, config: dict[str, Any]) -> Path:
    """Write a folder as an OCI layout; the same folder gives the same bytes."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = layout / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, str(path.relative_to(root)), recursive=False, filter=_plain)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = layer.stat().st_size
    layer.rename(blobs / digest)
    layers = [{"mediaType": f"{MEDIA}layer.v1.tar", "digest": f"sha256:{digest}", "size": size}]
    document = {
        "architecture": host_architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    described = _write(blobs, "config.v1+json", document)
    manifest = {"schemaVersion": 2, "mediaType": f"{MEDIA}manifest.v1+json", "config": described, "layers": layers}
    index = {"schemaVersion": 2, "manifests": [_write(blobs, "manifest.v1+json", manifest)]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def with_config(source: Path, layout: Path, config: dict[str, Any]) -> Path:
    """The same layers under another config."""
    index = json.loads((source / "index.json").read_text())
    manifest = _read(source, index["manifests"][0])
    document = _read(source, manifest["config"]) | {"config": config}
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    for layer in manifest["layers"]:
        name = layer["digest"].removeprefix("sha256:")
        (blobs / name).hardlink_to(source / "blobs/sha256" / name)
    manifest["config"] = _write(blobs, "config.v1+json", document)
    index["manifests"] = [_write(blobs, "manifest.v1+json", manifest)]
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return layout


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


def _write(blobs: Path, kind: str, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": f"{MEDIA}{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def _read(layout: Path, described: dict[str, Any]) -> dict[str, Any]:
    name = described["digest"].removeprefix("sha256:")
    return dict(json.loads((layout / "blobs/sha256" / name).read_text()))
