package trigger

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

const (
	// maxUnheard is how many pipelines GitLab is asked about in one call; the
	// next call continues.
	maxUnheard = 200
	// reportTime is how long after the end of a job its report may arrive.
	reportTime = 10 * time.Minute
)

// waits says what a job that has not begun waits for, by GitLab's status.
var waits = map[string]string{
	"created":              "Earlier jobs of the pipeline have to end first.",
	"scheduled":            "It is delayed by its `when:`.",
	"preparing":            "GitLab prepares it.",
	"pending":              "No runner has taken it: look whether one is online that may run this project's protected branches and has the job's tags.",
	"waiting_for_resource": "Another promotion of the repository goes first (resource_group).",
	"manual":               "Somebody has to start it by hand: the job has `when: manual` in the project's .gitlab-ci.yml.",
}

const (
	unreportedHint = "The image is promoted, but its report did not arrive: look at the job hubrelay-done of the pipeline. " +
		"Set notify_url to the output notify_url of Terraform, and notify_audience to the output notify_audience."
	noJobHint = "Include templates/promote.yml in the .gitlab-ci.yml of the project on the route's ref: this pipeline has no job " + gitlab.PromotionJob + "."
)

// unheard asks GitLab about pipelines that do not report, if the route has a
// token for that.
func (h handler) unheard(ctx context.Context, end time.Time) (asked int, failed error) {
	if len(h.APITokens) == 0 {
		return 0, nil
	}
	silent, err := h.Promotions.Unheard(ctx, maxUnheard)
	if err != nil {
		return 0, err
	}
	limited := map[string]bool{} // tokens with which GitLab takes no more questions for now
	for _, p := range silent {
		if time.Now().After(end) {
			break
		}
		state := h.job(ctx, p, limited)
		if err := h.Promotions.Asked(ctx, p, state); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if !state.Unknown {
			asked++
		}
	}
	return asked, failed
}

// job asks GitLab for the state of a promotion. It asks about the promotion's
// job, because another job that fails does not make the promotion fail.
func (h handler) job(ctx context.Context, p ledger.Promotion, limited map[string]bool) ledger.JobState {
	found, ok := h.Routes.Find(p.Repository)
	token := h.APITokens.Of(found.Key)
	if !ok || token.IsZero() || p.ProjectID == "" || limited[token.Reveal()] {
		return ledger.JobState{Unknown: true}
	}
	j, there, err := h.Pipelines.FindJob(ctx, gitlab.JobQuery{ProjectID: p.ProjectID, PipelineID: p.PipelineID(), Token: token})
	if err != nil {
		text := err.Error()
		var refused *gitlab.Error
		if errors.As(err, &refused) {
			limited[token.Reveal()] = refused.Reason == gitlab.RateLimited
			if refused.Hint != "" {
				text += ". " + refused.Hint
			}
		}
		h.log.LogAttrs(ctx, slog.LevelWarn, "pipeline not asked about",
			slog.String("promotion_id", p.ID), slog.String("repository", p.Repository), slog.String("tag", p.Tag),
			slog.String("route", found.Key), slog.String("error", text))
		return ledger.JobState{Unknown: true}
	}
	switch ended := time.Since(j.FinishedAt) > reportTime; { // if GitLab does not say when, it counts as long ago
	case !there:
		return ledger.JobState{State: ledger.Failed, Reason: ledger.NoJob, Hint: noJobHint}
	case waits[j.Status] != "":
		return ledger.JobState{State: ledger.Running, Reason: j.Status, Hint: waits[j.Status]}
	case j.Status == "failed" && ended:
		return ledger.JobState{State: ledger.Failed, Reason: ledger.PipelineFail}
	case (j.Status == "canceled" || j.Status == "skipped") && ended:
		return ledger.JobState{State: ledger.Failed, Reason: ledger.Canceled}
	case j.Status == "success" && ended:
		return ledger.JobState{State: ledger.Failed, Reason: ledger.Unreported, Hint: unreportedHint}
	}
	return ledger.JobState{State: ledger.Running}
}
