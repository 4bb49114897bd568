package learning

import "time"

// RewardCredits is what a passed quiz earns, once.
const RewardCredits = 10

// Reward is a claimed reward. TxHash is nil until something posts it to a chain.
type Reward struct {
	ID          SubmissionID `json:"id"`
	CourseTitle string       `json:"courseTitle"`
	Score       int          `json:"score"`
	Amount      int          `json:"amount"`
	TxHash      *string      `json:"txHash"`
	ClaimedAt   time.Time    `json:"claimedAt"`
}

// RewardParams selects a page of a learner's history.
type RewardParams struct {
	User  UserID
	Page  int
	Limit int
}

// RewardPage is one page of claimed rewards, newest claim first, ties broken by id, and
// the number of all.
type RewardPage struct {
	Rewards []Reward `json:"rewards"`
	Total   int      `json:"total"`
}

// Credential for a course. NFTIssuer and MintTxHash are nil until something posts it to
// a chain.
type Credential struct {
	ID           CredentialID `json:"id"`
	CourseID     CourseID     `json:"courseId"`
	CourseTitle  string       `json:"courseTitle"`
	Score        int          `json:"score"`
	NFTAssetCode *string      `json:"nftAssetCode"`
	NFTIssuer    *string      `json:"nftIssuer"`
	MintTxHash   *string      `json:"mintTxHash"`
	Revoked      bool         `json:"revoked"`
	MintedAt     time.Time    `json:"mintedAt"`
}

// IdempotencyKey is a client's name for one request, which it may send again. It belongs to
// a learner and an endpoint.
type IdempotencyKey struct {
	Key      string
	User     UserID
	Endpoint string // such as "rewards/claim"
}

// StoredResponse is what was answered to the request that used a key first.
type StoredResponse struct {
	RequestHash string // of the request's meaning; another hash under the same key is a conflict
	Status      int
	Body        []byte // JSON
	ExpiresAt   time.Time
}
