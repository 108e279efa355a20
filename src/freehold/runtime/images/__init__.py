"""Images of a host: parsed, fetched, checked, and turned into one read-only EROFS file by the node itself.

No byte that a tenant or peer made reaches a kernel file-system parser or a path outside its own folder: layers are
read by `tarstream`, merged in memory by `tree`, written into a private folder by `flatten`, and packed by mkfs.erofs
(docs/spec/images.md).

Glossary:
    digest: the text `sha256:` and 64 lower-case hex digits; no other algorithm is accepted.
    blob: bytes named by their digest: a manifest, a config or a layer.
    manifest: the JSON document that names one config and the layers, lowest first; its digest names the image.
    config: the JSON document with command, environment, user and the `diff_ids` of an image.
    diff id: digest of a layer's plain tar, after decompression.
    whiteout: an empty file `.wh.NAME` in a layer that removes NAME of the layers below.
    flattened: all layers merged into one tree, as a container sees it.
"""
