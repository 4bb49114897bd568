package learning

import (
	"context"
	"errors"
	"fmt"
)

// Enroll a user in an active course. Refusals: NotFound, Conflict.
func (p *Platform) Enroll(ctx context.Context, user UserID, course CourseID) (Enrollment, error) {
	e := Enrollment{CourseID: course, UserID: user, EnrolledAt: p.timestamp()}
	err := p.storage.Write(ctx, func(ctx context.Context, tx Tx) error {
		active, err := tx.CourseActive(ctx, course)
		if err != nil {
			return fmt.Errorf("enrol %s in %s: %w", user, course, err)
		}
		if !active {
			return errNoCourse
		}
		err = tx.InsertEnrollment(ctx, e)
		if errors.Is(err, ErrExists) {
			return &Error{Kind: Conflict, Message: "Already enrolled in this course"}
		}
		if err != nil {
			return fmt.Errorf("enrol %s in %s: %w", user, course, err)
		}
		return nil
	})
	if err != nil {
		return Enrollment{}, err
	}
	return e, nil
}
