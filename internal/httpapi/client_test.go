package httpapi_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/chainlearn/chainlearn/internal/learning"
	"github.com/chainlearn/chainlearn/internal/openapi/client"
)

// A learner goes from the catalogue to a credential with a client that a generator made of
// openapi.json: what it says of requests, answers, refusals and headers is enough.
func TestGeneratedClient(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx := t.Context()
	as := func(token string) *client.ClientWithResponses {
		c, err := client.NewClientWithResponses(s.api.URL, client.WithHTTPClient(s.api.Client()),
			client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				return nil
			}))
		must(t, err)
		return c
	}
	anyone, learner := as(""), as(s.token(ada))

	ready, err := anyone.IsReadyWithResponse(ctx)
	must(t, err)
	if ready.JSON200 == nil || ready.JSON200.Status != client.HealthStatusOk {
		t.Fatalf("ready: %s", ready.Body)
	}
	list, err := anyone.ListCoursesWithResponse(ctx, &client.ListCoursesParams{Difficulty: new(client.ListCoursesParamsDifficulty("beginner")), Limit: new(2)})
	must(t, err)
	if list.JSON200 == nil || len(list.JSON200.Data) != 2 || list.JSON200.Pagination.Total != 30 || list.Headers200.CacheStatus == "" {
		t.Fatalf("courses: %s", list.Body)
	}
	again, err := anyone.ListCoursesWithResponse(ctx, &client.ListCoursesParams{
		Difficulty: new(client.ListCoursesParamsDifficulty("beginner")), Limit: new(2), IfNoneMatch: &list.Headers200.ETag,
	})
	must(t, err)
	if again.StatusCode() != http.StatusNotModified {
		t.Errorf("the same page again: %d", again.StatusCode())
	}
	wrong, err := anyone.ListCoursesWithResponse(ctx, &client.ListCoursesParams{Limit: new(51)})
	must(t, err)
	if wrong.JSON400 == nil || (*wrong.JSON400.Details)["query"][0] != "limit: must be between 1 and 50" {
		t.Errorf("a limit of 51: %s", wrong.Body)
	}

	course := list.JSON200.Data[0].Id
	denied, err := anyone.EnrollWithResponse(ctx, course)
	must(t, err)
	if denied.JSON401 == nil || denied.Headers401.WWWAuthenticate != "Bearer" {
		t.Errorf("without a token: %d %s", denied.StatusCode(), denied.Body)
	}
	enrolled, err := learner.EnrollWithResponse(ctx, course)
	must(t, err)
	if enrolled.JSON201 == nil || enrolled.JSON201.Data.CourseId != course {
		t.Fatalf("enrol: %s", enrolled.Body)
	}
	detail, err := learner.GetCourseWithResponse(ctx, course, nil)
	must(t, err)
	if detail.JSON200 == nil || !detail.JSON200.Data.IsEnrolled || len(detail.JSON200.Data.Modules) == 0 || detail.JSON200.Data.ContentHash != nil {
		t.Fatalf("course: %s", detail.Body)
	}
	module := detail.JSON200.Data.Modules[0].Id
	quiz, err := learner.GenerateQuizWithResponse(ctx, client.QuizRequest{CourseId: course, ModuleId: module})
	must(t, err)
	if quiz.JSON201 == nil {
		t.Fatalf("quiz: %s", quiz.Body)
	}
	var answers client.QuizAnswers
	for _, q := range quiz.JSON201.Data.Questions {
		answers.Answers = append(answers.Answers, client.QuizAnswer{QuestionId: q.Id})
	}
	submitted, err := learner.SubmitQuizWithResponse(ctx, quiz.JSON201.Data.Id, answers)
	must(t, err)
	if submitted.JSON200 == nil || !submitted.JSON200.Data.Passed {
		t.Fatalf("submit: %s", submitted.Body)
	}
	submission := submitted.JSON200.Data.Id
	claimed, err := learner.ClaimRewardWithResponse(ctx, client.ClaimRequest{SubmissionId: submission, IdempotencyKey: "claim"})
	must(t, err)
	if claimed.JSON200 == nil || claimed.JSON200.Data.Amount != learning.RewardCredits || claimed.JSON200.Data.TxHash != nil {
		t.Fatalf("claim: %s", claimed.Body)
	}
	twice, err := learner.ClaimRewardWithResponse(ctx, client.ClaimRequest{SubmissionId: submission, IdempotencyKey: "another"})
	must(t, err)
	if twice.JSON409 == nil || twice.JSON409.Error != client.CONFLICT {
		t.Errorf("claimed twice: %d %s", twice.StatusCode(), twice.Body)
	}
	minted, err := learner.MintCredentialWithResponse(ctx, client.MintRequest{CourseId: course, SubmissionId: submission, IdempotencyKey: "mint"})
	must(t, err)
	if minted.JSON201 == nil || minted.JSON201.Data.CredentialId == uuid.Nil {
		t.Fatalf("mint: %s", minted.Body)
	}
	credentials, err := learner.ListCredentialsWithResponse(ctx, nil)
	must(t, err)
	if credentials.JSON200 == nil || len(credentials.JSON200.Data) != 1 || credentials.JSON200.Data[0].Id != minted.JSON201.Data.CredentialId {
		t.Errorf("credentials: %s", credentials.Body)
	}

	profile, err := learner.GetProfileWithResponse(ctx, nil)
	must(t, err)
	if profile.JSON200 == nil || profile.JSON200.Data.Credits != learning.RewardCredits {
		t.Fatalf("profile: %s", profile.Body)
	}
	seen := &client.PutProfileParams{IfMatch: &profile.Headers200.ETag}
	changed, err := learner.PutProfileWithResponse(ctx, seen, client.ProfileChange{DisplayName: new("Ada L.")})
	must(t, err)
	if changed.JSON200 == nil || *changed.JSON200.Data.DisplayName != "Ada L." {
		t.Fatalf("change: %s", changed.Body)
	}
	late, err := learner.PutProfileWithResponse(ctx, seen, client.ProfileChange{DisplayName: new("Ada K.")})
	must(t, err)
	if late.JSON412 == nil {
		t.Errorf("a change of what was seen before: %d %s", late.StatusCode(), late.Body)
	}
	gone, err := learner.SignOutWithResponse(ctx)
	must(t, err)
	if gone.JSON200 == nil {
		t.Errorf("sign out: %s", gone.Body)
	}
	after, err := learner.GetProgressWithResponse(ctx, nil)
	must(t, err)
	if after.JSON401 == nil {
		t.Errorf("after it: %d %s", after.StatusCode(), after.Body)
	}
}
