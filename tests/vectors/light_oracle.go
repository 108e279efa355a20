// Verdicts of CometBFT's own light client and evidence pool on light blocks, one JSON line in, one word out.
// Run by test_light_verdicts.py against github.com/cometbft/cometbft v0.38.25.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cometbft/cometbft/evidence"
	"github.com/cometbft/cometbft/light"
	pb "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/cometbft/cometbft/types"
)

type question struct {
	Trusted, Validators, Block []byte
	NowMs, PeriodMs, DriftMs   int64
	Evidence, Common, Other    []byte
}

func lightBlock(data []byte) (*types.LightBlock, error) {
	var message pb.LightBlock
	if err := message.Unmarshal(data); err != nil {
		return nil, err
	}
	block, err := types.LightBlockFromProto(&message)
	if err != nil {
		return nil, err
	}
	return block, block.ValidateBasic(block.ChainID)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func hop(q question) string {
	trusted := must(lightBlock(q.Trusted))
	var message pb.ValidatorSet
	if err := message.Unmarshal(q.Validators); err != nil {
		panic(err)
	}
	validators := must(types.ValidatorSetFromProto(&message))
	block, err := lightBlock(q.Block)
	if err != nil {
		return "INVALID"
	}
	err = light.Verify(trusted.SignedHeader, validators, block.SignedHeader, block.ValidatorSet,
		time.Duration(q.PeriodMs)*time.Millisecond, time.UnixMilli(q.NowMs),
		time.Duration(q.DriftMs)*time.Millisecond, light.DefaultTrustLevel)
	var notEnough light.ErrNewValSetCantBeTrusted
	var expired light.ErrOldHeaderExpired
	switch {
	case err == nil:
		return "SUCCESS"
	case errors.As(err, &notEnough):
		return "NOT_ENOUGH_TRUST"
	case errors.As(err, &expired):
		return "EXPIRED"
	}
	return "INVALID"
}

func attack(q question) string {
	var message pb.LightClientAttackEvidence
	if err := message.Unmarshal(q.Evidence); err != nil {
		panic(err)
	}
	piece := must(types.LightClientAttackEvidenceFromProto(&message))
	base, other := must(lightBlock(q.Common)), must(lightBlock(q.Other))
	if piece.CommonHeight == other.Height {
		base = other
	}
	if err := piece.ValidateBasic(); err != nil {
		return err.Error()
	}
	err := evidence.VerifyLightClientAttack(piece, base.SignedHeader, other.SignedHeader, base.ValidatorSet,
		time.Now(), time.Hour)
	if err != nil {
		return err.Error()
	}
	return "SUCCESS"
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			panic(err)
		}
		if q.Evidence != nil {
			fmt.Println(attack(q))
		} else {
			fmt.Println(hop(q))
		}
	}
}
