"""Corner cases of ed25519 as facts, run by `ed25519.self_test` on the machine that is about to vote.

Source: novifinancial/ed25519-speccheck cases.json (C. Chalkias, F. Garillot, V. Nikolaenko, "Taming the many
EdDSAs", 2020), its columns for libsodium and for ZIP-215 (Zebra); RFC 8032 section 7.1, test 1.
"""

from typing import Final, NamedTuple

RFC8032_SEED: Final = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
RFC8032_SIGNATURE: Final = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)


class CornerCase(NamedTuple):
    """A signature on which verifiers differ.

    Attributes:
        name: what is odd about it.
        strict: whether libsodium accepts it.
        zip215: whether ZIP-215 does.
        public: hex, as are the two below.
        message: what was signed.
        signature: 64 bytes.
    """

    name: str
    strict: bool
    zip215: bool
    public: str
    message: str
    signature: str


CORNER_CASES: Final = (
    CornerCase(
        "small_a_and_r",
        strict=False,
        zip215=True,
        public="c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        message="8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        signature="c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a00000000000000000000000000000000"
        "00000000000000000000000000000000",
    ),
    CornerCase(
        "small_a",
        strict=False,
        zip215=True,
        public="c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        message="9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        signature="f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03"
        "984d8068dcf1bb7dfc6637b45450ac04",
    ),
    CornerCase(
        "small_r",
        strict=False,
        zip215=True,
        public="f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        message="aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        signature="c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8"
        "751a7dfe1baff8b953ec9f5833ca260e",
    ),
    CornerCase(
        "mixed_a_and_r",
        strict=True,
        zip215=True,
        public="cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        message="9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        signature="9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad780"
        "2db02eb2e688b6c52fcd6648a98bd009",
    ),
    CornerCase(
        "cofactor_only",
        strict=False,
        zip215=True,
        public="cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        message="e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        signature="160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a"
        "6a58921d6925e434ab10aa7940551a09",
    ),
    CornerCase(
        "cofactor_only_k_reduced",
        strict=False,
        zip215=True,
        public="cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        message="e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        signature="21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03"
        "c1ceeeddb658d0030494ace586687405",
    ),
    CornerCase(
        "s_above_l",
        strict=False,
        zip215=False,
        public="442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        message="85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        signature="e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19"
        "b3b3052f7ff0538cb68afb369ba3a514",
    ),
    CornerCase(
        "s_far_above_l",
        strict=False,
        zip215=False,
        public="442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        message="85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        signature="8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58c"
        "c3f54b8bd0d272f42b695dd7e89a8c22",
    ),
    CornerCase(
        "non_canonical_r_hashed_reduced",
        strict=False,
        zip215=False,
        public="f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        message="9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        signature="ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d742"
        "8d12ffc5df5f37e359941266a4e35f0f",
    ),
    CornerCase(
        "non_canonical_r",
        strict=False,
        zip215=True,
        public="f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        message="9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        signature="ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a477"
        "5aa233aa0505711d8fdcfdaa943d4908",
    ),
    CornerCase(
        "non_canonical_a_hashed_reduced",
        strict=False,
        zip215=True,
        public="ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        message="e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        signature="a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03"
        "984d8068dcf1bb7dfc6637b45450ac04",
    ),
    CornerCase(
        "non_canonical_a",
        strict=False,
        zip215=True,
        public="ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        message="39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        signature="a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03"
        "984d8068dcf1bb7dfc6637b45450ac04",
    ),
)
