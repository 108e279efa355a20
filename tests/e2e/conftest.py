"""Fixtures of the tests that run real containers and grids; all they make is gone afterwards, also after a failure."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab, Node
from local_grid import LocalGrid
from oci_layout import build_layout
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


@pytest.fixture(scope="session")
def test_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test image as an OCI layout; see `oci_layout`."""
    return build_layout(tmp_path_factory.mktemp("oci"))


@pytest.fixture(scope="session")
def local_grid(test_layout: Path) -> Iterator[LocalGrid]:
    """The session's grid, with a wallet and the test image; see `local_grid`. Leave every node running."""
    with LocalGrid(nodes=4, farms=4) as grid:
        grid.wallet()
        grid.import_image(test_layout)
        yield grid


@pytest.fixture
def own_grid(test_layout: Path) -> Iterator[LocalGrid]:
    """A grid for one test alone: 4 nodes on 4 farms, a wallet, the test image."""
    with LocalGrid(nodes=4, farms=4) as grid:
        grid.wallet()
        grid.import_image(test_layout)
        yield grid
