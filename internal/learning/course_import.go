package learning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// CourseImport is what a course is to be. What is nil stays as it is; in a new course it has its
// default.
type CourseImport struct {
	ID          CourseID
	Title       string
	Description *string
	Difficulty  *Difficulty
	ContentHash *string
	IsActive    *bool
	Modules     []ModuleImport // in order; modules of the course that are not named stay, after them
}

// ModuleImport is what a module is to be.
type ModuleImport struct {
	ID        ModuleID
	Title     *string
	Questions []Question // nil: they stay as they are
}

// StoredCourse is a course as it is kept, active or not.
type StoredCourse struct {
	ID          CourseID       `json:"id"`
	Title       string         `json:"title"`
	Description string         `json:"description"`
	Difficulty  Difficulty     `json:"difficulty"`
	ContentHash *string        `json:"contentHash"`
	IsActive    bool           `json:"isActive"`
	CreatedAt   Time           `json:"createdAt"` // of a new course; of others it is not read and not changed
	Modules     []StoredModule `json:"-"`
}

// StoredModule is a module as it is kept. Without a row of its own it has neither Title nor Position.
type StoredModule struct {
	CourseID CourseID `json:"courseId"`
	ModuleRow
	Questions []Question `json:"-"` // of all quizzes that define it, in a stable order
	Submitted bool       `json:"-"` // one of these has submissions, of which the questions are a part
}

var errDryRun = errors.New("a dry run")

// ImportCourses makes courses what they are to be, in one transaction, and returns what that changes, in
// lines for people; none if nothing. Other courses stay. A dry run changes nothing, and fails
// where the import would. now is the time of the first new course; later ones are older,
// so that the catalogue lists them in order. Refusals: Invalid, Conflict.
func ImportCourses(ctx context.Context, s Storage, courses []CourseImport, now time.Time, dryRun bool) (changes []string, err error) {
	ids := make([]CourseID, len(courses))
	for i, c := range courses {
		ids[i] = c.ID
	}
	err = s.Write(ctx, func(ctx context.Context, tx Tx) error {
		stored, err := tx.StoredCourses(ctx, ids)
		if err != nil {
			return fmt.Errorf("import: read courses: %w", err)
		}
		w := importing{now: now}
		for i, c := range courses {
			at := slices.IndexFunc(stored, func(s StoredCourse) bool { return s.ID == c.ID })
			if at < 0 {
				w.create(c, i)
			} else {
				w.update(c, stored[at])
			}
		}
		if changes = w.changes; len(w.refused) > 0 {
			return &Error{Kind: Conflict, Message: strings.Join(w.refused, "\n")}
		}
		if err := w.save(ctx, tx); err != nil {
			return fmt.Errorf("import: %w", err)
		}
		if dryRun {
			return errDryRun
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return changes, nil
}

// importing collects what an import writes.
type importing struct {
	now              time.Time
	changes, refused []string

	courses []StoredCourse
	modules []StoredModule // whose rows are written
	quizzes []Quiz         // which take the place of those that define their modules
}

func (w *importing) save(ctx context.Context, tx Tx) error {
	if len(w.courses) > 0 {
		if err := tx.SaveCourses(ctx, w.courses); err != nil {
			return fmt.Errorf("save courses: %w", err)
		}
	}
	if len(w.modules) > 0 {
		if err := tx.SaveModules(ctx, w.modules); err != nil {
			return fmt.Errorf("save modules: %w", err)
		}
	}
	if len(w.quizzes) > 0 {
		if err := tx.ReplaceQuizzes(ctx, w.quizzes); err != nil {
			return fmt.Errorf("save questions: %w", err)
		}
	}
	return nil
}

func (w *importing) create(c CourseImport, i int) {
	course := StoredCourse{ID: c.ID, Difficulty: Beginner, IsActive: true, CreatedAt: Time(w.now.Add(-time.Duration(i) * time.Millisecond))}
	c.applyTo(&course)
	w.courses = append(w.courses, course)
	questions := 0
	for _, m := range c.Modules {
		questions += len(m.Questions)
	}
	w.changes = append(w.changes, fmt.Sprintf("+ course %s %q: %s, %s", c.ID, c.Title, count(len(c.Modules), "module"), count(questions, "question")))
	w.importModules(c, nil)
}

func (w *importing) update(c CourseImport, stored StoredCourse) {
	changed := stored
	c.applyTo(&changed)
	var fields []string
	for _, f := range []struct {
		name        string
		before, now any
	}{
		{"title", stored.Title, changed.Title},
		{"description", stored.Description, changed.Description},
		{"difficulty", stored.Difficulty, changed.Difficulty},
		{"contentHash", valueOr(stored.ContentHash, ""), valueOr(changed.ContentHash, "")},
		{"active", stored.IsActive, changed.IsActive},
	} {
		if f.before != f.now {
			fields = append(fields, difference(f.name, f.before, f.now))
		}
	}
	if len(fields) > 0 {
		w.courses = append(w.courses, changed)
		w.changes = append(w.changes, fmt.Sprintf("~ course %s %q: %s", c.ID, c.Title, strings.Join(fields, "; ")))
	}
	w.importModules(c, stored.Modules)
}

func (c CourseImport) applyTo(s *StoredCourse) {
	s.Title = c.Title
	s.Description = valueOr(c.Description, s.Description)
	s.Difficulty = valueOr(c.Difficulty, s.Difficulty)
	s.IsActive = valueOr(c.IsActive, s.IsActive)
	if c.ContentHash != nil {
		s.ContentHash = c.ContentHash
	}
}

// importModules gives the modules that are named the first positions. Those that are not named follow: the
// ones with a row get the positions after, the others have none, and so come last.
func (w *importing) importModules(c CourseImport, stored []StoredModule) {
	if len(c.Modules) == 0 {
		return
	}
	for i, m := range c.Modules {
		at := slices.IndexFunc(stored, func(s StoredModule) bool { return s.ID == m.ID })
		if at < 0 {
			w.createModule(c, m, i+1)
		} else {
			w.updateModule(c, m, i+1, stored[at])
		}
	}
	rest := slices.DeleteFunc(slices.Clone(stored), func(s StoredModule) bool {
		return s.Position == nil || slices.ContainsFunc(c.Modules, func(m ModuleImport) bool { return m.ID == s.ID })
	})
	slices.SortFunc(rest, func(a, b StoredModule) int {
		return cmp.Or(cmp.Compare(*a.Position, *b.Position), compareNatural(string(a.ID), string(b.ID)))
	})
	for i, s := range rest {
		w.saveModule(c, s, valueOr(s.Title, titleFrom(s.ID)), len(c.Modules)+1+i)
	}
}

func (w *importing) createModule(c CourseImport, m ModuleImport, position int) {
	if len(m.Questions) == 0 {
		w.refused = append(w.refused, fmt.Sprintf("course %s has no module %q yet: give it at least one question", c.ID, m.ID))
		return
	}
	title := valueOr(m.Title, titleFrom(m.ID))
	w.changes = append(w.changes, fmt.Sprintf("+ module %q of %s %q: %s", m.ID, c.ID, title, count(len(m.Questions), "question")))
	w.modules = append(w.modules, StoredModule{CourseID: c.ID, ModuleRow: ModuleRow{ID: m.ID, Title: &title, Position: &position}})
	w.replace(c, m)
}

func (w *importing) updateModule(c CourseImport, m ModuleImport, position int, stored StoredModule) {
	w.saveModule(c, stored, valueOr(m.Title, valueOr(stored.Title, titleFrom(m.ID))), position)
	added, changed, removed := compareQuestions(stored.Questions, m.Questions)
	if m.Questions == nil || reflect.DeepEqual(stored.Questions, m.Questions) {
		return
	}
	if stored.Submitted {
		w.refused = append(w.refused, fmt.Sprintf("the questions of module %q of course %s cannot be changed: learners have answered them as they are; give the module with the new ones another id", m.ID, c.ID))
		return
	}
	what := fmt.Sprintf("%d added, %d changed, %d removed", added, changed, removed)
	if added+changed+removed == 0 {
		what = "in another order"
	}
	w.changes = append(w.changes, fmt.Sprintf("~ module %q of %s: questions: %s", m.ID, c.ID, what))
	w.replace(c, m)
}

// saveModule gives a module a title and a position, if it has others.
func (w *importing) saveModule(c CourseImport, stored StoredModule, title string, position int) {
	var fields []string
	if before := valueOr(stored.Title, titleFrom(stored.ID)); before != title {
		fields = append(fields, difference("title", before, title))
	}
	if before := valueOr(stored.Position, 0); before != position {
		fields = append(fields, difference("position", before, position))
	}
	if len(fields) == 0 {
		return
	}
	w.changes = append(w.changes, fmt.Sprintf("~ module %q of %s: %s", stored.ID, c.ID, strings.Join(fields, "; ")))
	w.modules = append(w.modules, StoredModule{CourseID: c.ID, ModuleRow: ModuleRow{ID: stored.ID, Title: &title, Position: &position}})
}

func (w *importing) replace(c CourseImport, m ModuleImport) {
	w.quizzes = append(w.quizzes, Quiz{ID: NewID[Quiz](), CourseID: c.ID, ModuleID: m.ID, Questions: m.Questions, CreatedAt: w.now})
}

func compareQuestions(before, now []Question) (added, changed, removed int) {
	byID := map[string]Question{}
	for _, q := range before {
		byID[q.ID] = q
	}
	for _, q := range now {
		old, is := byID[q.ID]
		switch {
		case !is:
			added++
		case !reflect.DeepEqual(old, q):
			changed++
		}
		delete(byID, q.ID)
	}
	return added, changed, len(byID)
}

func valueOr[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func difference(name string, before, now any) string {
	return fmt.Sprintf("%s %s → %s", name, quoteShort(before), quoteShort(now))
}

// quoteShort shows a value on one line, and of a long text how it begins.
func quoteShort(v any) string {
	text, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
