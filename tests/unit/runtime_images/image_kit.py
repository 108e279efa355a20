"""Makes layers and images by hand, good and hostile, without any tool."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from freehold.runtime.images.blobs import BlobStore
from freehold.runtime.images.importing import host_architecture


def tar_entry(name, data=b"", kind=tarfile.REGTYPE, link="", **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_700_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name, **fields):
    return tar_entry(name, kind=tarfile.DIRTYPE, **fields)


def symlink(name, target, **fields):
    return tar_entry(name, kind=tarfile.SYMTYPE, link=target, **fields)


def hardlink(name, target, **fields):
    return tar_entry(name, kind=tarfile.LNKTYPE, link=target, **fields)


def device(name, **fields):
    return tar_entry(name, kind=tarfile.CHRTYPE, devmajor=1, devminor=3, **fields)


def fifo(name, **fields):
    return tar_entry(name, kind=tarfile.FIFOTYPE, **fields)


def tar(*entries, form=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def raw_header(name=b"x", flag=b"0", size=b"00000000000\0", link=b"", magic=b"ustar\x0000", uid=b"0000000\0"):
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = uid
    block[116:124] = b"0000000\0"
    block[124:136] = size
    block[136:148] = b"00000000000\0"
    block[156:157] = flag
    block[157 : 157 + len(link)] = link
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def pax_record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def pax_header(*records, flag=b"x"):
    data = b"".join(pax_record(key, value) for key, value in records)
    return raw_header(b"pax", flag, b"%011o\0" % len(data)) + padded(data)


END = bytes(1024)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(data, media_type, **more):
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def config_document(plain_layers, **inner):
    return {
        "architecture": host_architecture(),
        "os": "linux",
        "config": inner,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in plain_layers]},
    }


class HandMade:
    """An image as blobs: plain tars in, documents out."""

    def __init__(self, *layers, zipped=True, **inner):
        self.layers = layers
        self.stored = [gzip.compress(layer, 1, mtime=0) for layer in layers] if zipped else list(layers)
        media = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if zipped else "")
        self.config = json.dumps(config_document(layers, **inner)).encode()
        self.manifest_document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(layer, media) for layer in self.stored],
        }
        self.manifest = json.dumps(self.manifest_document).encode()
        self.digest = digest_of(self.manifest)

    @property
    def blobs(self):
        return [self.manifest, self.config, *self.stored]

    def into(self, store: BlobStore):
        for blob in self.blobs:
            store.put_bytes(blob)
        return self.digest

    def index(self, name="app"):
        entry = descriptor(
            self.manifest,
            "application/vnd.oci.image.manifest.v1+json",
            annotations={"org.opencontainers.image.ref.name": name},
        )
        return json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()

    def layout(self, path: Path, name="app"):
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (path / "index.json").write_bytes(self.index(name))
        for blob in self.blobs:
            (path / "blobs" / "sha256" / digest_of(blob)[7:]).write_bytes(blob)
        return path

    def oci_archive(self, name="app"):
        entries = [
            tar_entry("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            tar_entry("index.json", self.index(name)),
        ]
        entries += [tar_entry(f"blobs/sha256/{digest_of(blob)[7:]}", blob) for blob in self.blobs]
        return tar(*entries)

    def docker_archive(self, tags=("app:1",)):
        names = [f"{index}/layer.tar" for index in range(len(self.layers))]
        listing = [{"Config": "config.json", "RepoTags": list(tags), "Layers": names}]
        entries = [tar_entry("manifest.json", json.dumps(listing).encode()), tar_entry("config.json", self.config)]
        entries += [tar_entry(name, layer) for name, layer in zip(names, self.stored, strict=True)]
        return tar(*entries)
