"""Image references: `[registry/]path[:tag][@sha256:..]`, checked and split.

Source: distribution/reference grammar (OCI distribution specification).
"""

import re

import msgspec

MAX_REFERENCE_CHARACTERS = 512

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?"
_COMPONENT_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z", re.ASCII)
_DOMAIN_RE = re.compile(rf"{_DOMAIN}\Z", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)


class ImageReference(msgspec.Struct, frozen=True):
    """An image's name as the file gives it, in parts.

    Attributes:
        repository: with registry and path, such as `ghcr.io/owner/app` or `postgres`.
        tag: empty when none is written (then `latest`, unless a digest is given).
        digest: `sha256:` and 64 hex digits, or empty.
    """

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_image_reference(text: str) -> ImageReference | None:
    """Split an image reference; None when it is not one."""
    if len(text) > MAX_REFERENCE_CHARACTERS:
        return None
    name, at, digest = text.partition("@")
    if at and _DIGEST.match(digest) is None:
        return None
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and _TAG.match(tag) is None:
        return None
    repository = f"{head}{slash}{last}"
    return ImageReference(repository, tag, digest) if _is_repository(repository) else None


def _is_repository(repository: str) -> bool:
    first, slash, rest = repository.partition("/")
    has_domain = bool(slash) and (
        any(sign in first for sign in ".:[") or first == "localhost" or first != first.lower()
    )
    if has_domain:
        return _DOMAIN_RE.match(first) is not None and _COMPONENT_PATH.match(rest) is not None
    return _COMPONENT_PATH.match(repository) is not None
