package learning

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxIdempotencyKey is the most characters of a key.
	MaxIdempotencyKey = 255
	// idempotencyKeyTTL is how long a request may be sent again and be answered as before.
	idempotencyKeyTTL = 24 * time.Hour
)

// CheckIdempotencyKey returns what is wrong with a key, or "".
func CheckIdempotencyKey(key string) string {
	switch n := utf8.RuneCountInString(key); {
	case strings.TrimSpace(key) == "":
		return "must not be empty"
	case n > MaxIdempotencyKey:
		return fmt.Sprintf("must have at most %d characters, not %d", MaxIdempotencyKey, n)
	case strings.ContainsFunc(key, unicode.IsControl):
		return "must not contain control characters"
	}
	return ""
}

// idempotently carries out do, in one transaction with remembering its result under the key: the
// same request again returns the result of the first, and another request under the key is
// refused as a Conflict. Refusals of do are not remembered, because nothing was done. status
// is the HTTP status that the table of keys has a column for.
func idempotently[R any](ctx context.Context, p *Platform, key IdempotencyKey, status int, requestFields []string,
	do func(ctx context.Context, tx Tx) (R, error),
) (R, error) {
	var result R
	if problem := CheckIdempotencyKey(key.Key); problem != "" {
		return result, invalidBody("idempotencyKey: " + problem)
	}
	sum := sha256.Sum256([]byte(strings.Join(requestFields, "\n")))
	hash := hex.EncodeToString(sum[:])
	err := p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := p.timestamp()
		result = *new(R) // of an earlier attempt
		before, err := tx.StoredResponse(ctx, key, now)
		switch {
		case err == nil && before.RequestHash != hash:
			return &Error{Kind: Conflict, Message: "This idempotency key was used for another request"}
		case err == nil:
			if err := json.Unmarshal(before.Body, &result); err != nil {
				return fmt.Errorf("remembered answer to %s of %s: %w", key.Endpoint, key.User, err)
			}
			return nil
		case !errors.Is(err, ErrNoRow):
			return fmt.Errorf("recall %s of %s: %w", key.Endpoint, key.User, err)
		}
		if result, err = do(ctx, tx); err != nil {
			return err
		}
		body, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("remember %s of %s: %w", key.Endpoint, key.User, err)
		}
		err = tx.StoreResponse(ctx, key, StoredResponse{RequestHash: hash, Status: status, Body: body, ExpiresAt: now.Add(idempotencyKeyTTL)}, now)
		if err != nil {
			return fmt.Errorf("remember %s of %s: %w", key.Endpoint, key.User, err)
		}
		return nil
	})
	if err != nil {
		var none R
		return none, err
	}
	return result, nil
}

// passedSubmission returns the user's own submission, locked, if it passed.
func passedSubmission(ctx context.Context, tx Tx, user UserID, id SubmissionID) (Submission, error) {
	s, err := tx.SubmissionForUpdate(ctx, id)
	switch {
	case errors.Is(err, ErrNoRow) || err == nil && s.UserID != user:
		return Submission{}, &Error{Kind: NotFound, Message: "Submission not found"}
	case err != nil:
		return Submission{}, fmt.Errorf("submission %s: %w", id, err)
	case !s.Passed():
		return Submission{}, &Error{Kind: Forbidden, Message: "The quiz was not passed"}
	}
	return s, nil
}
