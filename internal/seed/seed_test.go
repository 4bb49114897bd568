package seed_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/seed"
	"github.com/chainlearn/chainlearn/internal/sqlite"
)

func open(t *testing.T) *sqlite.Storage {
	t.Helper()
	s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "seed.db"), sqlite.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestDemoIsAPlatformInUse(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	n, err := seed.Demo(ctx, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n.Courses < 24 || n.Users < 200 || n.Enrollments < 500 || n.Submissions < 500 || n.Credentials < 20 {
		t.Errorf("the demonstration is thin: %+v", n)
	}
	demo := learning.UserID{UUID: seed.DemoLearner}
	p, err := s.Progress(ctx, demo)
	if err != nil {
		t.Fatal(err)
	}
	if p.EnrolledCourses != 6 || p.CompletedCourses < 2 || p.CredentialsEarned != 2 || p.TotalQuizScore == 0 || p.RewardsClaimed == 0 {
		t.Errorf("the demo learner's progress is %+v", p)
	}
	account, err := s.Profile(ctx, demo)
	if err != nil {
		t.Fatal(err)
	}
	if account.Credits != p.RewardsClaimed*learning.RewardCredits {
		t.Errorf("%d credits for %d rewards", account.Credits, p.RewardsClaimed)
	}
	if again, err := seed.Demo(ctx, s, nil); err != nil || again != (seed.Counts{}) {
		t.Errorf("a second time %+v rows were new (error %v), want none", again, err)
	}
}

func TestGenerateMakesExactlyWhatIsAskedFor(t *testing.T) {
	for _, spec := range []seed.Spec{
		{},
		{Courses: 5},
		{Courses: 7, Users: 11, Enrollments: 77, Submissions: 231, Credentials: 77}, // all that is possible
		{Courses: 40, Users: 100, Enrollments: 350, Submissions: 120, Credentials: 60},
		{Courses: 1, Users: 3, Enrollments: 2, Submissions: 1, Credentials: 1},
	} {
		t.Run(fmt.Sprintf("%+v", spec), func(t *testing.T) {
			s := open(t)
			n, err := seed.Generate(t.Context(), s, spec)
			if err != nil {
				t.Fatal(err)
			}
			want := seed.Counts{Courses: spec.Courses, Users: spec.Users, Enrollments: spec.Enrollments, Submissions: spec.Submissions, Credentials: spec.Credentials}
			if n != want {
				t.Errorf("made %+v, want %+v", n, want)
			}
		})
	}
}

// recorder keeps rows instead of storing them.
type recorder map[string][][]any

func (r recorder) Insert(_ context.Context, table string, _ []string, rows iter.Seq[[]any]) (int, error) {
	r[table] = slices.Collect(rows)
	return len(r[table]), nil
}

func TestSameSeedMakesTheSameData(t *testing.T) {
	spec := seed.Spec{Courses: 10, Users: 20, Enrollments: 60, Submissions: 90, Credentials: 20, RandomSeed: 7}
	one, two, other := recorder{}, recorder{}, recorder{}
	for _, run := range []struct {
		to   recorder
		seed int64
	}{{one, 7}, {two, 7}, {other, 8}} {
		spec.RandomSeed = run.seed
		if _, err := seed.Generate(t.Context(), run.to, spec); err != nil {
			t.Fatal(err)
		}
	}
	text := func(r recorder) string {
		var b strings.Builder
		for _, table := range slices.Sorted(maps.Keys(r)) {
			fmt.Fprintln(&b, table, r[table])
		}
		return b.String()
	}
	if text(one) != text(two) {
		t.Error("the same seed made other data")
	}
	if text(one) == text(other) {
		t.Error("another seed made the same data")
	}
}

// What is generated keeps the platform's own rules.
func TestHistoriesAreConsistent(t *testing.T) {
	r := recorder{}
	spec := seed.Spec{Courses: 10, Users: 50, Enrollments: 200, Submissions: 500, Credentials: 90}
	if _, err := seed.Generate(t.Context(), r, spec); err != nil {
		t.Fatal(err)
	}
	credits, claimed := map[uuid.UUID]int{}, map[uuid.UUID]int{}
	for _, u := range r["users"] {
		credits[u[0].(uuid.UUID)] = u[7].(int)
		if a := u[1].(string); len(a) != 56 || a[0] != 'G' {
			t.Errorf("address %q", a)
		}
	}
	enrolled := map[[2]uuid.UUID]time.Time{}
	for _, e := range r["enrollments"] {
		enrolled[[2]uuid.UUID{e[1].(uuid.UUID), e[2].(uuid.UUID)}] = e[3].(time.Time)
	}
	for _, s := range r["quiz_submissions"] {
		user := s[2].(uuid.UUID)
		if s[6].(bool) {
			claimed[user]++
			if s[9].(time.Time).Before(s[8].(time.Time)) {
				t.Errorf("submission %v was claimed before it was made", s[0])
			}
		}
	}
	for user, n := range credits {
		if n != claimed[user]*learning.RewardCredits {
			t.Errorf("user %v has %d credits and claimed %d rewards", user, n, claimed[user])
		}
	}
	for _, c := range r["credentials"] {
		at, ok := enrolled[[2]uuid.UUID{c[1].(uuid.UUID), c[2].(uuid.UUID)}]
		if !ok || c[5].(time.Time).Before(at) {
			t.Errorf("credential %v without an enrollment before it", c[0])
		}
	}
}

func TestImpossibleAmountsAreRefusedTogether(t *testing.T) {
	r := recorder{}
	_, err := seed.Generate(t.Context(), r, seed.Spec{Courses: 2, Users: 3, Enrollments: 7, Submissions: -1, Credentials: 9})
	for _, want := range []string{"enrollments is 7: at most 6", "submissions is -1", "credentials is 9"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %q", err, want)
		}
	}
	if len(r) > 0 {
		t.Error("something was stored")
	}
}

func TestProgressIsReported(t *testing.T) {
	var last, calls int
	_, err := seed.Generate(t.Context(), recorder{}, seed.Spec{
		Courses: 10, Users: 1000, Enrollments: 2000, Submissions: 10,
		Progress: func(done, total int) {
			calls++
			if done < last || done > total {
				t.Errorf("progress went from %d to %d of %d", last, done, total)
			}
			last = done
		},
	})
	if err != nil || calls < 3 || last < 3000 {
		t.Errorf("%d reports, the last of %d rows, error %v", calls, last, err)
	}
}
