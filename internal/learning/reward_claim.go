package learning

import (
	"context"
	"fmt"
)

// Claimed is the answer to a claim. The reward is settled in the platform's own books at
// once, so Queued is false and TxHash nil until something posts it to a chain.
type Claimed struct {
	SubmissionID SubmissionID `json:"submissionId"`
	Amount       int          `json:"amount"`
	TxHash       *string      `json:"txHash"`
	Queued       bool         `json:"queued"`
	Message      string       `json:"message"`
}

// ClaimReward adds RewardCredits to the user's credits, once for each passed submission,
// whatever races. Refusals: Invalid, NotFound, Forbidden, Conflict.
func (p *Platform) ClaimReward(ctx context.Context, user UserID, id SubmissionID, key string) (Claimed, error) {
	k := IdempotencyKey{Key: key, User: user, Endpoint: "rewards/claim"}
	return idempotently(ctx, p, k, 200, []string{id.String()}, func(ctx context.Context, tx Tx) (Claimed, error) {
		fail := func(err error) (Claimed, error) {
			return Claimed{}, fmt.Errorf("claim reward of %s: %w", id, err)
		}
		s, err := passedSubmission(ctx, tx, user, id)
		if err != nil {
			return fail(err)
		}
		if s.RewardClaimed {
			return Claimed{}, &Error{Kind: Conflict, Message: "Reward already claimed"}
		}
		now := p.timestamp()
		if err := tx.MarkClaimed(ctx, id, RewardCredits, now); err != nil {
			return fail(err)
		}
		if err := tx.AddCredits(ctx, user, RewardCredits, now); err != nil {
			return fail(err)
		}
		return Claimed{SubmissionID: id, Amount: RewardCredits, Message: fmt.Sprintf("%d credits are yours", RewardCredits)}, nil
	})
}
