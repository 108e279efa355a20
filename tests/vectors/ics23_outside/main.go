// Other people's verifier: reads cases from standard input, answers with one verdict each.
package main

import (
	"encoding/json"
	"os"

	ics23 "github.com/cosmos/ics23/go"
)

// A case: the bytes of a commitment proof, and what it is said to prove; no value means absence.
type claim struct {
	Root  []byte `json:"root"`
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
	Proof []byte `json:"proof"`
}

func verify(claim claim) (verdict bool) {
	// The library panics on some malformed proofs, which is a refusal too.
	defer func() {
		if recover() != nil {
			verdict = false
		}
	}()
	var proof ics23.CommitmentProof
	if err := proof.Unmarshal(claim.Proof); err != nil {
		return false
	}
	if len(claim.Value) == 0 {
		return ics23.VerifyNonMembership(ics23.SmtSpec, claim.Root, &proof, claim.Key)
	}
	return ics23.VerifyMembership(ics23.SmtSpec, claim.Root, &proof, claim.Key, claim.Value)
}

func main() {
	var claims []claim
	if err := json.NewDecoder(os.Stdin).Decode(&claims); err != nil {
		panic(err)
	}
	verdicts := make([]bool, len(claims))
	for i, claim := range claims {
		verdicts[i] = verify(claim)
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		panic(err)
	}
}
