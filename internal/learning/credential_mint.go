package learning

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
)

// Minted is the answer to the minting of a credential. NFTIssuer and MintTxHash are nil
// until something posts the credential to a chain.
type Minted struct {
	CredentialID CredentialID `json:"credentialId"`
	NFTAssetCode string       `json:"nftAssetCode"`
	NFTIssuer    *string      `json:"nftIssuer"`
	MintTxHash   *string      `json:"mintTxHash"`
	Message      string       `json:"message"`
}

// MintCredential gives the user a credential for a course, once, on the strength of a
// passed submission. Refusals: Invalid, NotFound, Forbidden, Conflict.
func (p *Platform) MintCredential(ctx context.Context, user UserID, course CourseID, id SubmissionID, key string) (Minted, error) {
	k := IdempotencyKey{Key: key, User: user, Endpoint: "credentials/mint"}
	requestFields := []string{course.String(), id.String()}
	return idempotently(ctx, p, k, 201, requestFields, func(ctx context.Context, tx Tx) (Minted, error) {
		s, err := passedSubmission(ctx, tx, user, id)
		if err != nil {
			return Minted{}, fmt.Errorf("mint credential for %s: %w", course, err)
		}
		if s.CourseID != course {
			return Minted{}, invalidBody("submissionId: is of another course")
		}
		c := Credential{ID: NewID[Credential](), CourseID: course, Score: s.Score, MintedAt: p.timestamp()}
		code := AssetCode(c.ID)
		c.NFTAssetCode = &code
		err = tx.InsertCredential(ctx, user, c)
		if errors.Is(err, ErrExists) {
			return Minted{}, &Error{Kind: Conflict, Message: "Credential already minted for this course"}
		}
		if err != nil {
			return Minted{}, fmt.Errorf("mint credential for %s: %w", course, err)
		}
		return Minted{CredentialID: c.ID, NFTAssetCode: code, Message: "Credential minted"}, nil
	})
}

// AssetCode derives from a credential its asset code: twelve capital letters and digits, the
// most that Stellar allows.
func AssetCode(id CredentialID) string {
	sum := sha256.Sum256(id.UUID[:])
	return "CL" + base32.StdEncoding.EncodeToString(sum[:])[:10]
}
