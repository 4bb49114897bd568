package learning

// What clients see of an answer, where that is not the answer as it is: times have
// milliseconds, no list is null, and a course says whether the viewer is enrolled.

// CourseView is a course of a list.
type CourseView struct {
	Course
	IsEnrolled bool `json:"isEnrolled"` // the last field: see Document.addCourse
}

func pageDocument(p CoursePage) (Document, error) {
	d := Document{JSON: []byte{'['}, Total: p.Total}
	for i, c := range p.Courses {
		if i > 0 {
			d.JSON = append(d.JSON, ',')
		}
		if err := d.addCourse(c.ID, CourseView{Course: c}); err != nil {
			return Document{}, err
		}
	}
	d.JSON = append(d.JSON, ']')
	return d, nil
}

// CourseDetailView is a course by itself.
type CourseDetailView struct {
	Course
	ContentHash *string  `json:"contentHash"`
	Modules     []Module `json:"modules"`
	CreatedAt   Time     `json:"createdAt"`
	IsEnrolled  bool     `json:"isEnrolled"` // the last field
}

func detailDocument(c CourseDetail) (d Document, err error) {
	err = d.addCourse(c.ID, CourseDetailView{Course: c.Course, ContentHash: c.ContentHash, Modules: append([]Module{}, c.Modules...), CreatedAt: Time(c.CreatedAt)})
	return d, err
}

// ProfileView is a profile as the learner sees it.
type ProfileView struct {
	Profile
	CreatedAt Time `json:"createdAt"`
}

// View returns p as the learner sees it.
func (p Profile) View() ProfileView { return ProfileView{p, Time(p.CreatedAt)} }

// profileDocument is the profile as clients get it.
func profileDocument(p Profile) (Document, error) { return encodeDocument(p.View(), 0) }

// RewardView is a claimed reward.
type RewardView struct {
	Reward
	ClaimedAt Time `json:"claimedAt"`
}

func rewardDocument(p RewardPage) (Document, error) {
	views := make([]RewardView, len(p.Rewards))
	for i, r := range p.Rewards {
		views[i] = RewardView{r, Time(r.ClaimedAt)}
	}
	return encodeDocument(views, p.Total)
}

// CredentialView is a credential.
type CredentialView struct {
	Credential
	MintedAt Time `json:"mintedAt"`
}

func credentialDocument(all []Credential) (Document, error) {
	views := make([]CredentialView, len(all))
	for i, c := range all {
		views[i] = CredentialView{c, Time(c.MintedAt)}
	}
	return encodeDocument(views, len(all))
}

func progressDocument(p Progress) (Document, error) { return encodeDocument(p, 0) }
