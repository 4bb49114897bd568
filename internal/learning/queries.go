package learning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// The caching policy of the platform, all of it: what is cached, for how long, and what it
// depends on. Whatever is not here is asked of the database every time; above all whether
// a learner is enrolled, which is laid over the public answers afresh.
//
// Time bounds nothing but the damage of a defect: a write invalidates what it touched as
// it commits. Every tag of one entity goes with its family, which a write too large to
// name each entity bumps instead.

// queries of the platform, defined on one cache.
type queries struct {
	count       *cache.Cached[Difficulty, int]
	list        *cache.Cached[ListParams, CoursePage]
	detail      *cache.Cached[CourseID, CourseDetail]
	profile     *cache.Cached[UserID, Profile]
	progress    *cache.Cached[UserID, Progress]
	rewards     *cache.Cached[RewardParams, RewardPage]
	credentials *cache.Cached[UserID, []Credential]
	revoked     *cache.Cached[string, bool]
}

// warmPages bounds how many pages of each list are kept warm.
const warmPages = 25

func define(c *cache.Cache, s Reads, warmEvery time.Duration) *queries {
	var q queries

	// count answers for pages past the end of the catalogue, so that they need
	// no entries of their own: there are as many of those as anybody cares to ask for.
	q.count = cache.Define(c, cache.Query[Difficulty, int]{
		Name:         "courses:count",
		Key:          func(d Difficulty) string { return cache.Key(anyOr(d)) },
		Tags:         func(d Difficulty) []cache.Tag { return entity(CatalogTag(d)) },
		Load:         s.CountCourses,
		Fresh:        30 * time.Second,
		Stale:        30 * time.Second,
		StaleIfError: 10 * time.Minute,
	})
	q.list = cache.Define(c, cache.Query[ListParams, CoursePage]{
		Name:         "courses:list",
		Key:          func(p ListParams) string { return cache.Key(anyOr(p.Difficulty), p.Page, p.Limit) },
		Tags:         func(p ListParams) []cache.Tag { return entity(CatalogTag(p.Difficulty)) },
		Load:         s.ListCourses,
		Fresh:        30 * time.Second,
		Stale:        30 * time.Second,
		StaleIfError: 10 * time.Minute,
		Warm:         q.firstPages,
		WarmEvery:    warmEvery,
	})
	q.detail = cache.Define(c, cache.Query[CourseID, CourseDetail]{
		Name:         "courses:detail",
		Key:          func(id CourseID) string { return cache.Key(id) },
		Tags:         func(id CourseID) []cache.Tag { return entity(CourseTag(id)) },
		Load:         orNotFound(s.CourseDetail),
		Fresh:        2 * time.Minute,
		StaleIfError: 10 * time.Minute,
	})

	// Private answers: Owner makes the learner the first part of the key.
	q.profile = cache.Define(c, cache.Query[UserID, Profile]{ // also asked to authenticate every request
		Name:  "users:profile",
		Owner: UserID.String,
		Key:   func(UserID) string { return cache.Key("self") },
		Tags:  func(id UserID) []cache.Tag { return entity(UserTag(id)) },
		Load:  orNotFound(s.Profile),
		Fresh: time.Minute,
	})
	q.progress = cache.Define(c, cache.Query[UserID, Progress]{
		Name:  "users:progress",
		Owner: UserID.String,
		Key:   func(UserID) string { return cache.Key("self") },
		Tags:  func(id UserID) []cache.Tag { return entity(ProgressTag(id)) },
		Load:  s.Progress,
		Fresh: 10 * time.Second,
	})
	q.rewards = cache.Define(c, cache.Query[RewardParams, RewardPage]{
		Name:  "rewards:history",
		Owner: func(p RewardParams) string { return p.User.String() },
		Key:   func(p RewardParams) string { return cache.Key(p.Page, p.Limit) },
		Tags:  func(p RewardParams) []cache.Tag { return append(entity(RewardsTag(p.User)), entity(TitlesTag)...) },
		Load:  s.RewardHistory,
		Fresh: 30 * time.Second,
	})
	q.credentials = cache.Define(c, cache.Query[UserID, []Credential]{
		Name:  "credentials:list",
		Owner: UserID.String,
		Key:   func(UserID) string { return cache.Key("self") },
		Tags:  func(id UserID) []cache.Tag { return append(entity(CredentialsTag(id)), entity(TitlesTag)...) },
		Load:  s.Credentials,
		Fresh: time.Minute,
	})

	// The revocation list is asked with every request that bears a token. Keys are the
	// IDs of tokens we signed: no stranger can make one up.
	q.revoked = cache.Define(c, cache.Query[string, bool]{
		Name:  "tokens:revoked",
		Key:   func(jti string) string { return cache.Key(jti) },
		Tags:  func(jti string) []cache.Tag { return entity(TokenTag(jti)) },
		Load:  s.TokenRevoked,
		Fresh: time.Minute,
	})
	return &q
}

// firstPages returns the pages of the list, for every difficulty and for all of them, as
// clients ask for them that name no limit.
func (q *queries) firstPages(ctx context.Context) ([]ListParams, error) {
	var pages []ListParams
	for _, d := range append([]Difficulty{""}, Difficulties...) {
		total, err := q.count.Get(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("count courses to warm: %w", err)
		}
		// The first page exists even when it is empty.
		for page := 1; page <= warmPages && (page == 1 || (page-1)*DefaultLimit < total); page++ {
			pages = append(pages, ListParams{Difficulty: d, Page: page, Limit: DefaultLimit})
		}
	}
	return pages, nil
}

func anyOr(d Difficulty) string {
	if d == "" {
		return "all"
	}
	return string(d)
}

func entity(t cache.Tag) []cache.Tag { return []cache.Tag{t, t.Family()} }

// orNotFound makes a row that does not exist an answer that is cached.
func orNotFound[P, V any](load func(context.Context, P) (V, error)) func(context.Context, P) (V, error) {
	return func(ctx context.Context, p P) (V, error) {
		v, err := load(ctx, p)
		if errors.Is(err, ErrNoRow) {
			err = cache.ErrNotFound
		}
		return v, err
	}
}
