"""Golden bytes of every purpose: a tag, once used, never changes its meaning (docs/spec/hashes.md).

A new purpose adds a line; an edited line is a fork of every ledger and a break of every signature.
"""

from freehold.crypto import mmr
from freehold.crypto.hashing import Purpose, sha256, signing_bytes, tagged_hash

# `tagged_hash(purpose, b"part", b"")`, and sha256 of `signing_bytes(purpose, "freehold-test", b"part", b"")`
GOLDEN = {
    "TX_SIGN": "c5432012218f9d23c4b2a09dc30913d7348522f5930f608581067f474fac5535",
    "TX_ID": "57f15b044dc15d717b37d973efe02ad1f9a97638153c5c545ea148ea1ffb74c3",
    "DEPLOYMENT_ID": "e786df309ea3e6b1757cc5ce8d00cdcfd480d05be103cecd81a8ca888dd36318",
    "LEASE_ID": "7c4358332e7c5e61d3f7d32689cbd5ae921c89fbed37f09ff2f3abb8c002b7c5",
    "CHALLENGE_ID": "62a5ca2c47e118f11fe7e2474791a1151d0a9ba33193312949bc0f308047eb35",
    "BEACON": "fcd72768ae7a41aa9354f1475d80821525b7b83e4e91e658a7560d2446c33eca",
    "BEACON_SIGN": "0a5f90adb6a2042614a833d8ccad2930146dfe37231b6f82b17ec285bbe8623e",
    "VRF_INPUT": "c9d693d043e94366760612285695e299d73f9c4cbc3f113004dc58c27e9c5040",
    "VRF_TICKET": "16852e80adbbd93c8543591a94b2c25ba5a3ddecfffe1a6c5f8d536d5a70c15c",
    "VRF_BEACON": "bb622d18c98dff5ee3a409b06ce8042f529dcc5584770a32a88533c84341b414",
    "VRF_GENESIS": "7f86e1f50234b751fa3213ee9ed84908e7f0d54d76d7badac21657621b5b7fb0",
    "VRF_POSSESSION": "240953b43aa43956be1063aaac439d988ab42161bc3449f1e4c4d0e02fbddf76",
    "DRAW": "33574dc7619eee63e5bcd0563fd75c9ee7c8e0d300c391360112fb0ddd639fda",
    "PROBE_DRAW": "00b6a02d1d5d5f1163e2bf352e638dae7e999c40d72d5413b91d788d191b778f",
    "NODE_SLOT": "671172fe251f680f4c1dfeb40b85f250e418fd697a9b73bc49b82a286ae36516",
    "SPEC": "ddb36816711f4ce43ece7286c79b90a1f816b18574de405d92f0689c85230d5d",
    "SPEC_BOX_SIGN": "10ee27e06141b48453dfde71208fe089e98aa1515afc2353433d39fbacb633f5",
    "IMAGE_PROOF": "b11beb8557ab060e18923b76def2ccf40175c4a9735c50b6a2d820a89df1a46a",
    "REPORT_LEAF": "87db8fb9a11e8281838e31dca25a6684486335f2419e0e34e5847e53a1693217",
    "DUTY_LEAF": "a1d7d2f1b3d77389aff5727ef47e58a3aa022eeda4b873bd25d7587447effd91",
    "EVIDENCE_LEAF": "16985531eece8dcabe3c21a00600e8c8ca54fca26ffff67b7c345b21d891f1bc",
    "PROBE_SIGN": "b63611c76b16ce45ac9c4362c6580226cb4af4501ac6f17a2b5ee38e0bf2faed",
    "NODE_POSSESSION": "bd17b021296c4b3c1e14efe93fb5bc3648349ccd6ce7b5952b2cb8bf91f4e53f",
    "ENDPOINT_SIGN": "9d2a58540f7647d233af56f564551667bd662c2a7cb9306a1f50d5cb36200c68",
    "VALIDATOR_POSSESSION": "4e1749d2cb86cb7ac31acc5f570e03fc628b0aa782ae3064863a7039cc6cbdde",
    "UPGRADE_SIGN": "cb2c520764f1a83494406016fa844ec154c422b6cdbbf36e738bbd3a223c9120",
    "REQUEST_SIGN": "5b9218f9d46a161c1d60430819376e3eed13b0df09a2c54ea49e14b876fa45cd",
    "MMR_INNER": "8b0845badf573318cdba2d01bc43ce72e5cc890036be0d50694df63fce95f6a8",
    "MMR_ROOT": "86ee158ce99a029494d5b55bd5dac57d2cb7da371e779266cf2d402201e9f135",
    "SNAPSHOT": "07b0adeb57091fa14f07a64970be24be693346e57e3b1b4811273170ca2243f7",
    "SNAPSHOT_CHUNK": "308235fa530269eff13455660c1604b55d92305471541792bcc0610521f25680",
}
SIGNED_TX = (
    "0000001d66726565686f6c64207369676e6564206d6573736167653a2074782f310000000d66726565686f6c642d7465"
    "7374000000047061727400000000"
)
MMR_ROOTS = [  # of 0, 1, 2, 3, 7 leaves, REPORT_LEAF over the leaf's number in 8 bytes
    "b0067d23c6b32064ddbdde7f375a3c65bb1c1bec47780290ac2fc95f09b7a780",
    "145e3a7e20c5a632f2863cb512753e19ef08f5de409c013481b487f13dafab7b",
    "42caa660d5b3b366df5bffdddf3e601456a6b608b59aca5e62cc06c72680eae2",
    "38f836a528033cc72890029aacb56c4e06469b9252b8f7e64f170b92704f9b2a",
    "af5c119ce161a578b0e27cbf79bba1d7e3127c6ac701a853f1bcbb34a8407074",
]


def test_every_purpose() -> None:
    now = {
        purpose.name: (
            sha256(signing_bytes(purpose, "freehold-test", b"part", b""))
            if purpose.is_signed
            else tagged_hash(purpose, b"part", b"")
        ).hex()
        for purpose in Purpose
    }
    assert {name: now[name] for name in GOLDEN} == GOLDEN
    assert set(now) == set(GOLDEN), "write the new purpose's bytes here"


def test_signed_bytes_in_full() -> None:
    assert signing_bytes(Purpose.TX_SIGN, "freehold-test", b"part", b"").hex() == SIGNED_TX


def test_mountain_ranges() -> None:
    leaves = [tagged_hash(Purpose.REPORT_LEAF, number.to_bytes(8, "big")) for number in range(7)]
    assert [mmr.root(mmr.from_leaves(leaves[:count])).hex() for count in (0, 1, 2, 3, 7)] == MMR_ROOTS
