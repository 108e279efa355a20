"""Documents of images: what is accepted, and that everything else is refused by name."""

import copy
import json

import image_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.base.errors import FreeholdError
from freehold.runtime.images import manifest as m
from freehold.runtime.images.users import resolve_user

IMAGE = kit.HandMade(
    kit.tar(kit.tar_entry("x", b"x")),
    Entrypoint=["/bin/app"],
    Cmd=["-v"],
    Env=["A=b", "C="],
    WorkingDir="/srv",
    User="app:staff",
    ExposedPorts={"8080/tcp": {}, "53/udp": {}},
    StopSignal="SIGRTMIN+3",
    Volumes={"/data": {}},
)


def code_of(call, *arguments):
    with pytest.raises(m.ImageError) as caught:
        call(*arguments)
    return caught.value.code


def edited(document, **changes):
    changed = copy.deepcopy(document)
    for path, value in changes.items():
        place = changed
        *way, last = path.split("__")
        for key in way:
            place = place[int(key) if key.isdigit() else key]
        if value is ...:
            del place[last]
        else:
            place[int(last) if last.isdigit() else last] = value
    return json.dumps(changed).encode()


def test_good_manifest_and_config():
    manifest = m.parse_manifest(IMAGE.manifest)
    config = m.parse_config(IMAGE.config, len(manifest.layers))
    assert manifest.blobs == (manifest.config, *manifest.layers)
    assert config.entrypoint == ("/bin/app",)
    assert config.cmd == ("-v",)
    assert config.env == ("A=b", "C=")
    assert config.working_dir == "/srv"
    assert config.user == "app:staff"
    assert config.exposed_ports == ("53/udp", "8080/tcp")
    assert config.stop_signal == "SIGRTMIN+3"
    assert config.volumes == ("/data",)


def test_docker_media_types_and_a_missing_one_are_accepted():
    docker = edited(
        IMAGE.manifest_document,
        mediaType=m.MEDIA_DOCKER_MANIFEST,
        config__mediaType=m.MEDIA_DOCKER_CONFIG,
        layers__0__mediaType=m.MEDIA_DOCKER_TAR_GZIP,
    )
    assert m.parse_manifest(docker).layers[0].media_type in m.GZIP_TYPES
    assert m.parse_manifest(edited(IMAGE.manifest_document, mediaType=...))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"schemaVersion": 1}, "unsupported_media_type"),
        ({"schemaVersion": True}, "unsupported_media_type"),
        ({"mediaType": m.MEDIA_INDEX}, "unsupported_media_type"),
        ({"manifests": []}, "ambiguous_manifest"),
        ({"layers": []}, "bad_manifest"),
        ({"layers": {}}, "bad_manifest"),
        ({"layers": None}, "bad_manifest"),
        ({"layers": [IMAGE.manifest_document["layers"][0]] * 128}, "image_too_big"),
        ({"layers__0__urls": ["https://example.org/x"]}, "foreign_layer"),
        ({"layers__0__mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"}, "foreign_layer"),
        ({"layers__0__mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar"}, "foreign_layer"),
        ({"layers__0__mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}, "unsupported_compression"),
        ({"layers__0__mediaType": "text/plain"}, "unsupported_media_type"),
        ({"layers__0__size": -1}, "image_too_big"),
        ({"layers__0__size": 0}, "image_too_big"),
        ({"layers__0__size": 1 << 33}, "image_too_big"),
        ({"layers__0__size": 1 << 100}, "image_too_big"),
        ({"layers__0__size": 1.5}, "bad_manifest"),
        ({"layers__0__size": True}, "bad_manifest"),
        ({"layers__0__size": "1"}, "bad_manifest"),
        ({"layers__0__digest": "sha512:" + "0" * 128}, "bad_digest"),
        ({"layers__0__digest": "sha256:" + "A" * 64}, "bad_digest"),
        ({"layers__0__digest": "sha256:" + "0" * 63}, "bad_digest"),
        ({"layers__0__digest": "sha256:" + "0" * 64 + "\n"}, "bad_digest"),
        ({"layers__0__digest": "sha256:../../../etc/passwd"}, "bad_digest"),
        ({"config__mediaType": "application/vnd.cncf.helm.config.v1+json"}, "unsupported_media_type"),
        ({"config__size": 2 << 20}, "image_too_big"),
        ({"config": ...}, "bad_manifest"),
    ],
)
def test_manifests_that_are_refused(changes, code):
    assert code_of(m.parse_manifest, edited(IMAGE.manifest_document, **changes)) == code


def test_layers_of_together_more_than_the_bound():
    layers = [{**IMAGE.manifest_document["layers"][0], "size": 3 << 30, "digest": f"sha256:{n:064x}"} for n in (1, 2)]
    assert code_of(m.parse_manifest, edited(IMAGE.manifest_document, layers=layers)) == "image_too_big"


def test_one_digest_with_two_sizes():
    layer = IMAGE.manifest_document["layers"][0]
    layers = [layer, {**layer, "size": layer["size"] + 1}]
    assert code_of(m.parse_manifest, edited(IMAGE.manifest_document, layers=layers)) == "bad_manifest"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        b'{"schemaVersion": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b" " * ((1 << 20) + 1),
        b'{"schemaVersion": ' + b"9" * 10_000 + b"}",
    ],
)
def test_documents_that_are_none(data):
    for parse in (m.parse_manifest, m.parse_index, m.parse_archive_manifest, lambda raw: m.parse_config(raw, 1)):
        assert code_of(parse, data) in {"bad_manifest", "image_too_big", "unsupported_media_type"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"os": "windows"}, "wrong_platform"),
        ({"rootfs__diff_ids": []}, "bad_config"),
        ({"rootfs__diff_ids": ["sha256:" + "0" * 64] * 2}, "bad_config"),
        ({"rootfs__diff_ids": ["x"]}, "bad_digest"),
        ({"rootfs__type": "other"}, "bad_config"),
        ({"config__Env": ["NOVALUE"]}, "bad_config"),
        ({"config__Env": ["=x"]}, "bad_config"),
        ({"config__Env": ["A=b\0c"]}, "bad_config"),
        ({"config__Env": ["A=b"] * 2_000}, "bad_config"),
        ({"config__Env": ["A=" + "b" * 40_000]}, "bad_config"),
        ({"config__WorkingDir": "relative"}, "bad_config"),
        ({"config__WorkingDir": "/a/../../b"}, "bad_config"),
        ({"config__User": "a b"}, "bad_config"),
        ({"config__User": "0:0:0"}, "bad_config"),
        ({"config__User": "-1"}, "bad_config"),
        ({"config__StopSignal": "KILL;rm"}, "bad_config"),
        ({"config__ExposedPorts": {"0/tcp": {}}}, "bad_config"),
        ({"config__ExposedPorts": {"65536/tcp": {}}}, "bad_config"),
        ({"config__ExposedPorts": {"80/tcp\n": {}}}, "bad_config"),
        ({"config__Volumes": {"data": {}}}, "bad_config"),
        ({"config__Cmd": "not a list"}, "bad_manifest"),
        ({"config__Entrypoint": [1]}, "bad_manifest"),
    ],
)
def test_configs_that_are_refused(changes, code):
    assert code_of(m.parse_config, edited(json.loads(IMAGE.config), **changes), 1) == code


def test_archive_manifest():
    good = [{"Config": "a.json", "RepoTags": None, "Layers": ["x/layer.tar"]}]
    (image,) = m.parse_archive_manifest(json.dumps(good).encode())
    assert image == m.ArchiveImage("a.json", ("x/layer.tar",), ())
    for path in ("/etc/passwd", "../x", "a/../../x", "a//b", "", "a/", "x" * 600, "a\nb", "./a"):
        bad = [{"Config": path, "Layers": ["x"]}]
        assert code_of(m.parse_archive_manifest, json.dumps(bad).encode()) == "bad_path"
    assert code_of(m.parse_archive_manifest, b"[]") == "bad_manifest"


def test_selection_in_an_index():
    def entry(name, architecture="amd64", system="linux", digest="1" * 64):
        return {
            "mediaType": m.MEDIA_MANIFEST,
            "digest": f"sha256:{digest}",
            "size": 10,
            "annotations": {m.REF_NAME: name},
            "platform": {"architecture": architecture, "os": system},
        }

    def index(*entries):
        return m.parse_index(json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode())

    one, two = entry("one"), entry("two", digest="2" * 64)
    assert m.select_manifest(index(one), None, "amd64").names == ("one",)
    assert m.select_manifest(index(one, two), "two", "amd64").digest.endswith("2")
    assert m.select_manifest(index(one, entry("one", "arm64", digest="3" * 64)), None, "amd64").digest.endswith("1")
    assert code_of(m.select_manifest, index(one, two), None, "amd64") == "ambiguous_image"
    assert code_of(m.select_manifest, index(one), "other", "amd64") == "no_such_image"
    assert code_of(m.select_manifest, index(one), None, "arm64") == "no_such_image"
    assert code_of(m.select_manifest, index(entry("w", system="windows")), None, "amd64") == "no_such_image"
    assert code_of(index, *[one] * 257) == "bad_manifest"
    assert code_of(m.parse_index, IMAGE.manifest) == "ambiguous_manifest"


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(IMAGE.manifest) - 1), st.integers(0, 255))
def test_no_bytes_raise_anything_else(noise, position, byte):
    flipped = bytearray(IMAGE.manifest)
    flipped[position] = byte
    for data in (noise, bytes(flipped)):
        for parse in (m.parse_manifest, m.parse_index, m.parse_archive_manifest, lambda raw: m.parse_config(raw, 1)):
            try:
                parse(data)
            except FreeholdError as error:
                assert error.code


PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:50::/app:/bin/false\nbad line\nbig:x:99999:1::/:/x\n7:x:70:71::/:/x\n"
)
GROUP = b"root:x:0:\nstaff:x:50:app,root\nlog:x:44:app\n"


def test_users():
    assert resolve_user("", PASSWD, GROUP).uid == 0
    app = resolve_user("app", PASSWD, GROUP)
    assert (app.uid, app.gid, app.groups, app.home) == (1000, 50, (44,), "/app")
    assert resolve_user("app:log", PASSWD, GROUP).gid == 44
    assert resolve_user("1234", b"", b"").uid == 1234
    assert resolve_user("1234:99", b"", b"").gid == 99
    assert resolve_user("1000", PASSWD, GROUP).home == "/app"
    for text in ("nobody", "big", "70000", "app:none", "0:70000", "-1", "0x10", "٣"):
        assert code_of(resolve_user, text, PASSWD, GROUP) == "unknown_user"
