"""Fixtures of the tests that run real containers; everything they make is gone afterwards, also after a failure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, Node
from rootfs import build_image


@pytest.fixture(scope="session")
def container_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An EROFS image with sh, coreutils and Python."""
    return build_image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A node's surroundings."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield lab
    finally:
        lab.close()


@pytest.fixture
def node(lab: Lab, container_image: Path) -> Iterator[Node]:
    """A runtime in the lab."""
    node = Node(lab, container_image)
    try:
        yield node
    finally:
        node.close()
