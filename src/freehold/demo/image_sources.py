"""Where the demo's Debian packages come from: the machine's own apt sources, Debian's alone (pure).

Third-party repositories are left out twice: by suite, component and path here, and by signature later, since every
line written here is signed by Debian's archive keyring.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from freehold.base.errors import FreeholdError

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SCHEME = re.compile(r"(?:mirror\+)?https?://", re.ASCII)
_LAST_PART = re.compile(r"/debian(?:-security|-archive)?/?\Z", re.ASCII)


@dataclass(frozen=True, order=True)
class AptSource:
    """One repository, suite and set of components."""

    uri: str
    suite: str
    components: tuple[str, ...]

    @property
    def line(self) -> str:
        """The line for a sources.list."""
        return f"deb [signed-by={DEBIAN_KEYRING}] {self.uri} {self.suite} {' '.join(self.components)}"


def debian_sources(files: Mapping[str, str], codename: str) -> tuple[AptSource, ...]:
    """Pick Debian's own repositories of one release out of apt's source files.

    Args:
        files: name and text of sources.list and of each file in sources.list.d ending in .list or .sources.
        codename: such as `bookworm`, from /etc/os-release.

    Returns:
        The sources, each once, in a stable order; only the component main is used.

    Raises:
        FreeholdError: there is none for the release itself (`no_apt_sources`).
    """
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    found: set[AptSource] = set()
    for name, text in files.items():
        entries = _deb822(text) if name.endswith(".sources") else _one_line(text)
        for uri, suite, components, options in entries:
            if suite in suites and "main" in components and _is_debian(uri, options):
                found.add(AptSource(uri, suite, ("main",)))
    if not any(source.suite == codename for source in found):
        raise FreeholdError(
            f"apt has no http source of Debian {codename}",
            code="no_apt_sources",
            hint=f"the demo builds its images from Debian packages: add Debian's {codename} to /etc/apt/sources.list",
        )
    return tuple(sorted(found))


def _is_debian(uri: str, options: Mapping[str, str]) -> bool:
    signed_by = options.get("signed-by", "")
    by_debian = not signed_by or "debian-archive" in signed_by
    # A trusted source is not checked by signature on this machine, so it may be anyone's.
    is_trusted = options.get("trusted", "no") in ("yes", "true", "1")
    plain = _SCHEME.match(uri) and _LAST_PART.search(uri) and "docker.com" not in uri
    return bool(plain) and by_debian and not is_trusted


_Entry = tuple[str, str, tuple[str, ...], Mapping[str, str]]


def _one_line(text: str) -> Iterator[_Entry]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line, re.ASCII)
        if match is not None:
            options = dict(part.lower().split("=", 1) for part in (match[1] or "").split() if "=" in part)
            yield match[2], match[3], tuple(match[4].split()), options


def _deb822(text: str) -> Iterator[_Entry]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and last:
                fields[last] += " " + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                last = name.strip().lower()
                fields[last] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield uri, suite, tuple(fields.get("components", "").split()), fields
