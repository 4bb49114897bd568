package learning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chainlearn/chainlearn/cache"
)

// Platform answers learners' questions, from the cache where it may, and carries out what
// they do. Each of its errors is an *Error, which the learner may read, or trouble that
// the learner may not; trouble with a cached answer is a *cache.LoadError or a
// *cache.OverloadError. It is safe for concurrent use.
type Platform struct {
	storage Storage
	queries *queries
	now     func() time.Time
}

// Config of a Platform. Its zero value is good.
type Config struct {
	// WarmEvery is the pause between two rounds of loading the first pages of the
	// catalogue. Shorter than nine tenths of a page's time (a minute, with its stale half),
	// it keeps them from ever going cold. Default 5 minutes.
	WarmEvery time.Duration
	// Now tells the time of what learners do. Default time.Now.
	Now func() time.Time
}

// New returns a Platform that keeps its data in s and defines its queries on c, once per
// cache: a second Platform on the same cache is a mistake in the program and panics.
func New(c *cache.Cache, s Storage, cfg Config) *Platform {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Platform{
		storage: s,
		queries: define(c, s, cmp.Or(cfg.WarmEvery, 5*time.Minute)),
		now:     cfg.Now,
	}
}

// time of an act, as precise as clients are told and databases keep.
func (p *Platform) moment() time.Time { return p.now().UTC().Truncate(time.Millisecond) }

// Ping says whether the database answers.
func (p *Platform) Ping(ctx context.Context) error { return p.storage.Ping(ctx) }

// Nobody is a viewer without an account. No account has this ID.
var Nobody UserID

// Catalog is a page of courses and, of those on it, which the viewer is enrolled in. The
// page is cached and everybody's; Enrolled is neither.
type Catalog struct {
	cache.Answer[CoursePage]
	Enrolled map[CourseID]bool
}

// Courses returns a page of the catalogue as viewer, who may be Nobody, sees it. A page past the
// end is empty and has the true total.
func (p *Platform) Courses(ctx context.Context, viewer UserID, params ListParams) (Catalog, error) {
	if params.Page > 1 {
		count, err := p.queries.count.Ask(ctx, params.Difficulty)
		if err != nil || (params.Page-1)*params.Limit >= count.Value {
			return Catalog{Answer: in(count, CoursePage{Courses: []Course{}, Total: count.Value})}, err
		}
	}
	page, err := p.queries.list.Ask(ctx, params)
	if err != nil || viewer == Nobody || len(page.Value.Courses) == 0 {
		return Catalog{Answer: page}, err
	}
	ids := make([]CourseID, len(page.Value.Courses))
	for i, c := range page.Value.Courses {
		ids[i] = c.ID
	}
	enrolled, err := p.storage.Enrolled(ctx, viewer, ids)
	if err != nil {
		return Catalog{}, fmt.Errorf("enrolments of %s: %w", viewer, err)
	}
	return Catalog{page, enrolled}, nil
}

// in returns a with another value: the same happened on the way to it.
func in[V, W any](a cache.Answer[V], value W) cache.Answer[W] {
	return cache.Answer[W]{Value: value, Status: a.Status, Detail: a.Detail, Age: a.Age, TTL: a.TTL, ETag: a.ETag}
}

// CourseView is a course and whether the viewer is enrolled.
type CourseView struct {
	cache.Answer[CourseDetail]
	Enrolled bool
}

var errNoCourse = &Error{Kind: NotFound, Message: "Course not found"}

// Course returns an active course as viewer, who may be Nobody, sees it. With an error of kind
// NotFound, the answer still says how the cache came by it.
func (p *Platform) Course(ctx context.Context, viewer UserID, id CourseID) (CourseView, error) {
	course, err := p.queries.detail.Ask(ctx, id)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return CourseView{Answer: course}, errNoCourse
	case err != nil || viewer == Nobody:
		return CourseView{Answer: course}, err
	}
	enrolled, err := p.storage.Enrolled(ctx, viewer, []CourseID{id})
	if err != nil {
		return CourseView{}, fmt.Errorf("enrolment of %s: %w", viewer, err)
	}
	return CourseView{course, enrolled[id]}, nil
}

// ModuleView is a module of a course and whether the viewer has completed it.
type ModuleView struct {
	cache.Answer[Module]
	CourseID  CourseID
	Completed bool
}

var errNoModule = &Error{Kind: NotFound, Message: "Module not found"}

// Module returns a module of an active course as viewer, who may be Nobody, sees it.
func (p *Platform) Module(ctx context.Context, viewer UserID, course CourseID, id ModuleID) (ModuleView, error) {
	detail, err := p.queries.detail.Ask(ctx, course)
	view := ModuleView{Answer: in(detail, Module{}), CourseID: course}
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return view, errNoCourse
	case err != nil:
		return view, err
	}
	err = errNoModule
	for _, m := range detail.Value.Modules {
		if m.ID == id {
			view.Value, err = m, nil
			break
		}
	}
	if err != nil || viewer == Nobody {
		return view, err
	}
	view.Completed, err = p.storage.CompletedModule(ctx, viewer, course, id)
	if err != nil {
		return ModuleView{}, fmt.Errorf("completion of %s by %s: %w", id, viewer, err)
	}
	return view, nil
}

// Profile returns a user, or an error of kind NotFound.
func (p *Platform) Profile(ctx context.Context, id UserID) (cache.Answer[Profile], error) {
	a, err := p.queries.profile.Ask(ctx, id)
	if errors.Is(err, cache.ErrNotFound) {
		err = errNoUser
	}
	return a, err
}

var errNoUser = &Error{Kind: NotFound, Message: "User not found"}

// TokenRevoked says whether the token with this ID was revoked before its time.
func (p *Platform) TokenRevoked(ctx context.Context, jti string) (bool, error) {
	return p.queries.revoked.Get(ctx, jti)
}

// Progress of a user.
func (p *Platform) Progress(ctx context.Context, id UserID) (cache.Answer[Progress], error) {
	return p.queries.progress.Ask(ctx, id)
}

// Rewards returns a page of what a user has claimed. A page past the end is empty and has
// the true total.
func (p *Platform) Rewards(ctx context.Context, params RewardParams) (cache.Answer[RewardPage], error) {
	if params.Page > 1 {
		// The first page knows the total: what lies past the end needs no entry of its own.
		first, err := p.queries.rewards.Ask(ctx, RewardParams{User: params.User, Page: 1, Limit: params.Limit})
		if err != nil || (params.Page-1)*params.Limit >= first.Value.Total {
			return in(first, RewardPage{Rewards: []Reward{}, Total: first.Value.Total}), err
		}
	}
	return p.queries.rewards.Ask(ctx, params)
}

// Credentials of a user, newest first, revoked ones too.
func (p *Platform) Credentials(ctx context.Context, id UserID) (cache.Answer[[]Credential], error) {
	return p.queries.credentials.Ask(ctx, id)
}
