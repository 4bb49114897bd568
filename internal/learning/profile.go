package learning

import (
	"context"
	"errors"
	"fmt"
	"html"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/microcosm-cc/bluemonday"
)

// Most characters (not bytes) of the texts in a profile.
const (
	MaxDisplayName  = 100
	MaxBackground   = 1000
	MaxLearningGoal = 500
	MaxLanguage     = 10
)

// Problems returns what is wrong with a change, one line for each field.
func (c ProfileChange) Problems() []string {
	var problems []string
	for _, f := range []struct {
		name string
		text *string
		most int
	}{
		{"displayName", c.DisplayName, MaxDisplayName},
		{"background", c.Background, MaxBackground},
		{"learningGoal", c.LearningGoal, MaxLearningGoal},
		{"language", c.Language, MaxLanguage},
	} {
		if f.text == nil {
			continue
		}
		if n := utf8.RuneCountInString(*f.text); n > f.most {
			problems = append(problems, fmt.Sprintf("%s: must have at most %d characters, not %d", f.name, f.most, n))
		} else if HasControls(*f.text) {
			problems = append(problems, f.name+": must not contain control characters")
		}
	}
	if c.Language != nil && plainText(*c.Language) == "" {
		problems = append(problems, "language: must not be empty")
	}
	if c.Pace != nil && !slices.Contains(Paces, *c.Pace) {
		problems = append(problems, "pace: must be one of slow, medium, fast")
	}
	return problems
}

// HasControls says whether a text has characters that none needs, and that databases (NUL) and
// logs (the rest) stumble over.
func HasControls(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\r' && r != '\t' })
}

// UpdateProfile stores the change, without markup, if the profile as it is, and as clients get it, may be
// changed, and returns the user as it then is. Refusals: Invalid, NotFound, Changed.
func (p *Platform) UpdateProfile(ctx context.Context, id UserID, change ProfileChange, may func(Document) bool) (Profile, error) {
	if problems := change.Problems(); problems != nil {
		return Profile{}, invalidBody(problems...)
	}
	var after Profile
	err := p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		before, err := tx.ProfileForUpdate(ctx, id)
		if errors.Is(err, ErrNoRow) {
			return errNoUser
		}
		if err != nil {
			return fmt.Errorf("update profile of %s: %w", id, err)
		}
		document, err := profileDocument(before)
		if err != nil {
			return err
		}
		if !may(document) {
			return &Error{Kind: Changed, Message: "The profile is not in the state that the request demands: get it again"}
		}
		after = change.applyTo(before)
		if err := tx.UpdateProfile(ctx, after, p.timestamp()); err != nil {
			return fmt.Errorf("update profile of %s: %w", id, err)
		}
		return nil
	})
	if err != nil {
		return Profile{}, err
	}
	return after, nil
}

func (c ProfileChange) applyTo(p Profile) Profile {
	set := func(field **string, text *string) {
		if text == nil {
			return
		}
		*field = nil
		if plain := plainText(*text); plain != "" {
			*field = &plain
		}
	}
	set(&p.DisplayName, c.DisplayName)
	set(&p.Background, c.Background)
	set(&p.LearningGoal, c.LearningGoal)
	if c.Pace != nil {
		p.Pace = *c.Pace
	}
	if c.Language != nil {
		p.Language = plainText(*c.Language)
	}
	return p
}

var noMarkup = bluemonday.StrictPolicy()

// plainText returns s without markup, as text: an ampersand stays an ampersand. The policy
// returns HTML, so its entities are resolved again; and since that may bring to light
// markup that was written as entities, it is done until nothing changes.
func plainText(s string) string {
	for range 8 { // markup escaped more often than this is no accident, and stays escaped
		plain := html.UnescapeString(noMarkup.Sanitize(s))
		if plain == s {
			return strings.TrimSpace(s)
		}
		s = plain
	}
	return strings.TrimSpace(noMarkup.Sanitize(s))
}

func invalidBody(problems ...string) *Error {
	return &Error{Kind: Invalid, Message: "The request is not valid", Fields: map[string][]string{"body": problems}}
}
