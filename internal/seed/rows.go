package seed

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
)

// Counts of rows in the tables of learners' work.
type Counts struct {
	Courses, Users, Enrollments, Submissions, Credentials int
}

// table is what fill brings to one table, in the order that foreign keys want.
type table struct {
	name    string
	columns []string
	rows    iter.Seq[[]any]
	total   int  // about
	count   *int // of the rows that were new; nil if not reported
}

// fill stores the dataset in sink. A row that is there already stays as it is.
func (d *dataset) fill(ctx context.Context, sink Sink, progress func(done, total int)) (n Counts, err error) {
	tables := d.tables(&n)
	total, done := 0, 0
	for _, t := range tables {
		total += t.total
	}
	for _, t := range tables {
		counted := func(yield func([]any) bool) {
			for row := range t.rows {
				if done++; progress != nil && done%1000 == 0 {
					progress(done, max(total, done))
				}
				if !yield(row) {
					return
				}
			}
		}
		stored, err := sink.Insert(ctx, t.name, t.columns, counted)
		if err != nil {
			return n, fmt.Errorf("seed %s: %w", t.name, err)
		}
		if t.count != nil {
			*t.count = stored
		}
	}
	if progress != nil {
		progress(done, done)
	}
	return n, nil
}

func (d *dataset) tables(n *Counts) []table {
	modules, enrollments, submissions, credentials := 0, 0, 0, 0
	for _, c := range d.courses {
		modules += len(c.modules)
	}
	for user := range d.users {
		for nth := range d.coursesOf(user) {
			taken, credential := d.submittedBy(user, nth)
			enrollments++
			submissions += taken
			if credential {
				credentials++
			}
		}
	}
	return []table{
		{"courses", []string{"id", "title", "description", "difficulty", "content_hash", "is_active", "created_at"},
			d.courseRows, len(d.courses), &n.Courses},
		{"modules", []string{"course_id", "module_id", "title", "position"},
			d.moduleRows, modules, nil},
		{"quizzes", []string{"id", "course_id", "module_id", "questions", "generated_for", "created_at"},
			d.quizRows, modules, nil},
		{"users", []string{"id", "stellar_address", "display_name", "background", "learning_goal", "pace", "language", "credits", "created_at", "updated_at"},
			d.userRows, d.users, &n.Users},
		{"enrollments", []string{"id", "user_id", "course_id", "enrolled_at", "completed_at"},
			d.enrollmentRows, enrollments, &n.Enrollments},
		{"quiz_submissions", []string{"id", "quiz_id", "user_id", "answers", "score", "feedback", "reward_claimed", "reward_amount", "submitted_at", "claimed_at"},
			d.submissionRows, submissions, &n.Submissions},
		{"credentials", []string{"id", "user_id", "course_id", "score", "nft_asset_code", "minted_at"},
			d.credentialRows, credentials, &n.Credentials},
	}
}

func (d *dataset) courseRows(yield func([]any) bool) {
	for _, c := range d.courses {
		if !yield([]any{c.id, c.source.Title, c.source.Description, c.source.Difficulty, c.contentHash(), c.source.Active, c.source.CreatedAt}) {
			return
		}
	}
}

func (d *dataset) moduleRows(yield func([]any) bool) {
	for _, c := range d.courses {
		for _, m := range c.modules {
			if !yield([]any{c.id, m.source.ID, m.source.Title, m.source.Order}) {
				return
			}
		}
	}
}

func (d *dataset) quizRows(yield func([]any) bool) {
	for _, c := range d.courses {
		for _, m := range c.modules {
			if !yield([]any{m.quiz.ID.UUID, c.id, m.source.ID, m.questions, nil, c.source.CreatedAt}) {
				return
			}
		}
	}
}

func (d *dataset) userRows(yield func([]any) bool) {
	paces := learning.Paces
	languages := []string{"en", "en", "en", "es", "pt", "fr", "de", "id"}
	for user := range d.users {
		p := d.profile(user)
		rng := d.random("accounts", user)
		key := sha256.Sum256(fmt.Appendf(nil, "%d stellar key %d", d.seed, user))
		credits, joined := 0, lastDay
		for h := range d.histories(user) {
			for _, a := range h.attempts {
				if a.claimed {
					credits += learning.RewardCredits
				}
			}
			if h.enrolledAt.Before(joined) {
				joined = h.enrolledAt
			}
		}
		joined = joined.AddDate(0, 0, -1-rng.IntN(30))
		row := []any{
			p.id, stellarAddress(key), p.name, nullIfEmpty(p.background), nullIfEmpty(p.goal),
			string(paces[rng.IntN(len(paces))]), languages[rng.IntN(len(languages))], credits, joined, joined,
		}
		if !yield(row) {
			return
		}
	}
}

func nullIfEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// histories of a user, one for each course joined.
func (d *dataset) histories(user int) iter.Seq[history] {
	return func(yield func(history) bool) {
		for nth, number := range d.coursesOf(user) {
			if !yield(d.history(user, nth, number)) {
				return
			}
		}
	}
}

// visitHistories visits those of all users, with the user's number and ID.
func (d *dataset) visitHistories(visit func(user int, id uuid.UUID, h history) bool) {
	for user := range d.users {
		id := d.profile(user).id
		for h := range d.histories(user) {
			if !visit(user, id, h) {
				return
			}
		}
	}
}

func (d *dataset) enrollmentRows(yield func([]any) bool) {
	d.visitHistories(func(_ int, user uuid.UUID, h history) bool {
		var completed any
		if !h.completedAt.IsZero() {
			completed = h.completedAt
		}
		return yield([]any{uuid.NewSHA1(user, h.course.id[:]), user, h.course.id, h.enrolledAt, completed})
	})
}

func (d *dataset) submissionRows(yield func([]any) bool) {
	d.visitHistories(func(_ int, user uuid.UUID, h history) bool {
		for _, a := range h.attempts {
			answers, err := json.Marshal(a.Answers)
			if err != nil {
				panic(err) // a struct of a string and a number
			}
			var amount, claimedAt any
			if a.claimed {
				amount, claimedAt = learning.RewardCredits, a.claimedAt
			}
			row := []any{a.ID.UUID, a.QuizID.UUID, user, json.RawMessage(answers), a.Score, a.Feedback, a.claimed, amount, a.SubmittedAt, claimedAt}
			if !yield(row) {
				return false
			}
		}
		return true
	})
}

func (d *dataset) credentialRows(yield func([]any) bool) {
	d.visitHistories(func(_ int, user uuid.UUID, h history) bool {
		if !h.credential {
			return true
		}
		id := uuid.NewSHA1(h.course.id, user[:])
		last := h.attempts[len(h.attempts)-1]
		return yield([]any{id, user, h.course.id, last.Score, learning.AssetCode(learning.CredentialID{UUID: id}), h.mintedAt})
	})
}
