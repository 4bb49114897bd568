package learning

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
	"github.com/chainlearn/chainlearn/internal/sep10"
)

// Platform answers learners' questions, from the cache where it may, and carries out what
// they do. Each of its errors is an *Error, which the learner may read, or trouble that
// the learner may not; trouble with a cached answer is a *cache.LoadError or a
// *cache.OverloadError. It is safe for concurrent use.
type Platform struct {
	storage Storage
	queries *queries
	signIn  *sep10.Server // nil: none
	now     func() time.Time
}

// Config of a Platform. Its zero value is good.
type Config struct {
	// WarmEvery is the pause between two rounds of loading the first pages of the
	// catalogue. Shorter than nine tenths of a page's time (a minute, with its stale half),
	// it keeps them from ever going cold. Default 5 minutes.
	WarmEvery time.Duration
	// Near is for how long the public answers (the catalogue) may be served from this
	// process's memory without proof that no other process changed them: usually a
	// message's time behind, at most this. Default 0: each is checked in the shared cache.
	Near time.Duration
	// NearStrict keeps them there too, and has the shared cache prove for each request that no
	// other process has changed them. Then Near must be 0.
	NearStrict bool
	// SignIn makes and verifies the challenges that wallets sign. Default nil: users cannot
	// sign in, and bear tokens that were issued otherwise.
	SignIn *sep10.Server
	// Now tells the time of what learners do. Default time.Now.
	Now func() time.Time
}

// New returns a Platform that keeps its data in s and defines its queries on c, once per
// cache: a second Platform on the same cache is a mistake in the program and panics.
func New(c *cache.Cache, s Storage, cfg Config) *Platform {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.WarmEvery = cmp.Or(cfg.WarmEvery, 5*time.Minute)
	return &Platform{
		storage: s,
		queries: defineQueries(c, s, cfg),
		signIn:  cfg.SignIn,
		now:     cfg.Now,
	}
}

// timestamp is the time of a write, as precise as clients are told and databases keep.
func (p *Platform) timestamp() time.Time { return p.now().UTC().Truncate(time.Millisecond) }

// Ping says whether the database may be read and written; see Storage.
func (p *Platform) Ping(ctx context.Context) error { return p.storage.Ping(ctx) }

// Anonymous is a viewer without an account. No account has this ID.
var Anonymous UserID

// CatalogueView is a public answer and which of its courses the viewer is enrolled in. The answer is
// cached and shared by all viewers; Enrolled is neither.
type CatalogueView struct {
	cache.Answer[Document]
	Enrolled map[CourseID]bool
}

// Courses returns a page of the catalogue as viewer, who may be Anonymous, sees it. A page past the
// end is empty and has the true total.
func (p *Platform) Courses(ctx context.Context, viewer UserID, params ListParams) (CatalogueView, error) {
	if params.Page > 1 {
		count, err := p.queries.count.Lookup(ctx, params.Difficulty)
		if err != nil || (params.Page-1)*params.Limit >= count.Value {
			return CatalogueView{Answer: withValue(count, emptyPage(count.Value))}, err
		}
	}
	page, err := p.queries.list.Lookup(ctx, params)
	if err != nil {
		return CatalogueView{Answer: page}, err
	}
	return p.withEnrolments(ctx, viewer, page)
}

// withEnrolments lays over a public answer what only its viewer may know.
func (p *Platform) withEnrolments(ctx context.Context, viewer UserID, a cache.Answer[Document]) (CatalogueView, error) {
	if viewer == Anonymous {
		return CatalogueView{Answer: a}, nil
	}
	courses := a.Value.Courses()
	if len(courses) == 0 {
		return CatalogueView{Answer: a}, nil
	}
	enrolled, err := p.storage.Enrolled(ctx, viewer, courses)
	if err != nil {
		return CatalogueView{}, fmt.Errorf("enrolments of %s: %w", viewer, err)
	}
	return CatalogueView{a, enrolled}, nil
}

// emptyPage is a page past the end.
func emptyPage(total int) Document { return Document{JSON: []byte("[]"), Total: total} }

// withValue returns a with another value and the same cache metadata.
func withValue[V, W any](a cache.Answer[V], value W) cache.Answer[W] {
	return cache.Answer[W]{Value: value, Status: a.Status, Detail: a.Detail, Age: a.Age, TTL: a.TTL, ETag: a.ETag}
}

var errNoCourse = &Error{Kind: NotFound, Message: "Course not found"}

// Course returns an active course as viewer, who may be Anonymous, sees it. With an error of kind
// NotFound, the answer still says how the cache came by it.
func (p *Platform) Course(ctx context.Context, viewer UserID, id CourseID) (CatalogueView, error) {
	course, err := p.queries.detail.Lookup(ctx, id)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return CatalogueView{Answer: course}, errNoCourse
	case err != nil:
		return CatalogueView{Answer: course}, err
	}
	return p.withEnrolments(ctx, viewer, course)
}

// ModuleView is a module of a course and whether the viewer has completed it.
type ModuleView struct {
	cache.Answer[Module]
	CourseID  CourseID
	Completed bool
}

var errNoModule = &Error{Kind: NotFound, Message: "Module not found"}

// Module returns a module of an active course as viewer, who may be Anonymous, sees it.
func (p *Platform) Module(ctx context.Context, viewer UserID, of CourseID, id ModuleID) (ModuleView, error) {
	detail, err := p.queries.detail.Lookup(ctx, of)
	view := ModuleView{Answer: withValue(detail, Module{}), CourseID: of}
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return view, errNoCourse
	case err != nil:
		return view, err
	}
	var course struct{ Modules []Module }
	if err := json.Unmarshal(detail.Value.JSON, &course); err != nil {
		return view, fmt.Errorf("modules of %s: %w", of, err)
	}
	err = errNoModule
	for _, m := range course.Modules {
		if m.ID == id {
			view.Value, err = m, nil
			break
		}
	}
	if err != nil || viewer == Anonymous {
		return view, err
	}
	view.Completed, err = p.storage.CompletedModule(ctx, viewer, of, id)
	if err != nil {
		return ModuleView{}, fmt.Errorf("completion of %s by %s: %w", id, viewer, err)
	}
	return view, nil
}

// Bearer returns the bearer of a token, or an error of kind NotFound if there is no such user or the
// token was revoked before its time.
func (p *Platform) Bearer(ctx context.Context, params BearerParams) (cache.Answer[Bearer], error) {
	a, err := p.queries.bearer.Lookup(ctx, params)
	if errors.Is(err, cache.ErrNotFound) {
		err = errNoUser
	}
	return a, err
}

var errNoUser = &Error{Kind: NotFound, Message: "User not found"}

// Progress of a user.
func (p *Platform) Progress(ctx context.Context, id UserID) (cache.Answer[Document], error) {
	return p.queries.progress.Lookup(ctx, id)
}

// Rewards returns a page of what a user has claimed. A page past the end is empty and has
// the true total.
func (p *Platform) Rewards(ctx context.Context, params RewardParams) (cache.Answer[Document], error) {
	if params.Page > 1 {
		// The first page knows the total: what lies past the end needs no entry of its own.
		first, err := p.queries.rewards.Lookup(ctx, RewardParams{User: params.User, Page: 1, Limit: params.Limit})
		if err != nil || (params.Page-1)*params.Limit >= first.Value.Total {
			return withValue(first, emptyPage(first.Value.Total)), err
		}
	}
	return p.queries.rewards.Lookup(ctx, params)
}

// Credentials of a user, newest first, revoked ones too.
func (p *Platform) Credentials(ctx context.Context, id UserID) (cache.Answer[Document], error) {
	return p.queries.credentials.Lookup(ctx, id)
}
