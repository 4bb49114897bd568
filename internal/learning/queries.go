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
// a learner is enrolled, which is laid over the public answers with each request.
//
// Time bounds nothing but the damage of a defect: a write invalidates what it touched as
// it commits. Every tag of one entity goes with its family, which a write too large to
// name each entity bumps instead.

// Answers are kept as clients get them, see Document.

// queries of the platform, defined on one cache.
type queries struct {
	count       *cache.Cached[Difficulty, int]
	list        *cache.Cached[ListParams, Document]
	detail      *cache.Cached[CourseID, Document]
	bearer      *cache.Cached[BearerParams, Bearer]
	progress    *cache.Cached[UserID, Document]
	rewards     *cache.Cached[RewardParams, Document]
	credentials *cache.Cached[UserID, Document]
}

// warmPages bounds how many pages of each list are kept warm.
const warmPages = 25

func defineQueries(c *cache.Cache, s Reads, cfg Config) *queries {
	var q queries

	// count answers for pages past the end of the catalogue, so that they need
	// no entries of their own: clients can ask for any number of those.
	q.count = cache.Define(c, cache.Query[Difficulty, int]{
		Name:                 "courses:count",
		Key:                  func(d Difficulty) string { return cache.Key(difficultyKey(d)) },
		Tags:                 func(d Difficulty) []cache.Tag { return []cache.Tag{CatalogTag(d)} },
		Load:                 s.CountCourses,
		FreshFor:             30 * time.Second,
		StaleWhileRevalidate: 30 * time.Second,
		StaleIfError:         10 * time.Minute,
		Near:                 cfg.Near,
		NearStrict:           cfg.NearStrict,
	})
	q.list = cache.Define(c, cache.Query[ListParams, Document]{
		Name:                 "courses:list",
		Key:                  func(p ListParams) string { return cache.Key(difficultyKey(p.Difficulty), p.Page, p.Limit) },
		Tags:                 func(p ListParams) []cache.Tag { return []cache.Tag{CatalogTag(p.Difficulty)} },
		Load:                 documentLoader(s.ListCourses, pageDocument),
		Codec:                documentCodec{},
		FreshFor:             30 * time.Second,
		StaleWhileRevalidate: 30 * time.Second,
		StaleIfError:         10 * time.Minute,
		Near:                 cfg.Near,
		NearStrict:           cfg.NearStrict,
		Warm:                 q.firstPages,
		WarmEvery:            cfg.WarmEvery,
	})
	q.detail = cache.Define(c, cache.Query[CourseID, Document]{
		Name:         "courses:detail",
		Key:          func(id CourseID) string { return cache.Key(id) },
		Tags:         func(id CourseID) []cache.Tag { return []cache.Tag{CourseTag(id)} },
		Load:         documentLoader(s.CourseDetail, detailDocument),
		Codec:        documentCodec{},
		FreshFor:     2 * time.Minute,
		StaleIfError: 10 * time.Minute,
		Near:         cfg.Near,
		NearStrict:   cfg.NearStrict,
	})

	// Private answers: Owner makes the learner the first part of the key.

	// bearer is asked with every request that bears a token. Its keys hold the IDs of tokens
	// that we signed: clients cannot invent them. A revoked token has no bearer.
	q.bearer = cache.Define(c, cache.Query[BearerParams, Bearer]{
		Name:  "users:profile",
		Owner: func(p BearerParams) string { return p.User.String() },
		Key:   func(p BearerParams) string { return cache.Key(p.Token) },
		Tags: func(p BearerParams) []cache.Tag {
			return []cache.Tag{UserTag(p.User), TokenTag(p.Token)}
		},
		Load:     bearerLoader(s),
		Codec:    bearerCodec{},
		FreshFor: time.Minute,
	})
	q.progress = cache.Define(c, cache.Query[UserID, Document]{
		Name:     "users:progress",
		Owner:    UserID.String,
		Key:      func(UserID) string { return cache.Key("self") },
		Tags:     func(id UserID) []cache.Tag { return []cache.Tag{ProgressTag(id)} },
		Load:     documentLoader(s.Progress, progressDocument),
		Codec:    documentCodec{},
		FreshFor: 10 * time.Second,
	})
	q.rewards = cache.Define(c, cache.Query[RewardParams, Document]{
		Name:  "rewards:history",
		Owner: func(p RewardParams) string { return p.User.String() },
		Key:   func(p RewardParams) string { return cache.Key(p.Page, p.Limit) },
		Tags: func(p RewardParams) []cache.Tag {
			return []cache.Tag{RewardsTag(p.User), TitlesTag}
		},
		Load:     documentLoader(s.RewardHistory, rewardDocument),
		Codec:    documentCodec{},
		FreshFor: 30 * time.Second,
	})
	q.credentials = cache.Define(c, cache.Query[UserID, Document]{
		Name:     "credentials:list",
		Owner:    UserID.String,
		Key:      func(UserID) string { return cache.Key("self") },
		Tags:     func(id UserID) []cache.Tag { return []cache.Tag{CredentialsTag(id), TitlesTag} },
		Load:     documentLoader(s.Credentials, credentialDocument),
		Codec:    documentCodec{},
		FreshFor: time.Minute,
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

func difficultyKey(d Difficulty) string {
	if d == "" {
		return "all"
	}
	return string(d)
}

// documentLoader makes a loader of one that reads rows. A row that does not exist is an answer that
// is cached.
func documentLoader[P, V any](read func(context.Context, P) (V, error), encode func(V) (Document, error)) func(context.Context, P) (Document, error) {
	return func(ctx context.Context, p P) (Document, error) {
		v, err := read(ctx, p)
		if errors.Is(err, ErrNoRow) {
			return Document{}, cache.ErrNotFound
		}
		if err != nil {
			return Document{}, err
		}
		return encode(v)
	}
}

func bearerLoader(s Reads) func(context.Context, BearerParams) (Bearer, error) {
	return func(ctx context.Context, p BearerParams) (Bearer, error) {
		profile, revoked, err := s.Bearer(ctx, p.User, p.Token)
		if errors.Is(err, ErrNoRow) || revoked {
			return Bearer{}, cache.ErrNotFound
		}
		if err != nil {
			return Bearer{}, err
		}
		d, err := profileDocument(profile)
		return Bearer{profile.StellarAddress, d}, err
	}
}
