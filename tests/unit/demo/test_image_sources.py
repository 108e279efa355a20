"""Which of a machine's apt sources the demo takes its packages from."""

import pytest

from freehold.base.errors import FreeholdError
from freehold.demo.image_sources import debian_sources

DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
  bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""
THIRD_PARTY = """\
deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/debian bookworm stable
deb https://download.docker.com/linux/debian bookworm main
deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb [trusted=yes] https://unsigned.example/debian bookworm main
deb https://packages.vendor.example/debian/12/prod bookworm main
deb http://apt.example/pub/repos/apt bookworm-pgdg main
deb file:/srv/debian bookworm main
deb-src http://source.example/debian bookworm main
# deb http://commented.example/debian bookworm main
"""


def test_debians_own_sources_are_taken():
    sources = debian_sources({"debian.sources": DEB822, "vendor.list": THIRD_PARTY}, "bookworm")
    assert [(source.uri, source.suite) for source in sources] == [
        ("http://mirror.example/debian", "bookworm"),
        ("http://mirror.example/debian", "bookworm-updates"),
        ("http://mirror.example/debian-security/", "bookworm-security"),
    ]
    assert all(source.components == ("main",) for source in sources)
    assert sources[0].line == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian bookworm main"
    )


def test_one_line_form():
    text = "deb   [ arch=amd64 ]  https://deb.example/debian/ bookworm main contrib # why\n"
    (source,) = debian_sources({"sources.list": text}, "bookworm")
    assert source.uri == "https://deb.example/debian/"


def test_no_source_is_told_with_the_next_step():
    for files in ({}, {"vendor.list": THIRD_PARTY}, {"debian.sources": DEB822.replace("bookworm", "trixie")}):
        with pytest.raises(FreeholdError) as caught:
            debian_sources(files, "bookworm")
        assert caught.value.code == "no_apt_sources"
        assert "sources.list" in caught.value.hint
