package learning

import "github.com/chainlearn/chainlearn/cache/cachetest"

// Samples are parameters of every query of the platform.
type Samples struct {
	Difficulties []Difficulty
	Lists        []ListParams
	Courses      []CourseID
	Bearers      []BearerParams
	Users        []UserID
	Rewards      []RewardParams
}

// Parts are the samples as cachetest.Verify takes them.
func (p *Platform) Parts(s Samples) []cachetest.Part {
	return []cachetest.Part{
		cachetest.Sample(p.queries.count, s.Difficulties...),
		cachetest.Sample(p.queries.list, s.Lists...),
		cachetest.Sample(p.queries.detail, s.Courses...),
		cachetest.Sample(p.queries.bearer, s.Bearers...),
		cachetest.Sample(p.queries.progress, s.Users...),
		cachetest.Sample(p.queries.rewards, s.Rewards...),
		cachetest.Sample(p.queries.credentials, s.Users...),
	}
}
