package ledger

import (
	"errors"
	"slices"
)

// Report is what a pipeline reports to Notify.
type Report struct {
	State       State // Running, Promoted, Skipped, Superseded or Failed
	Digest      string
	PipelineURL string
	Text        string
	Version     string
	// From is the pipeline that the id token names. It is nil if the caller
	// used a shared token, which is trusted.
	From *Caller
}

// Caller is a GitLab pipeline, as an id token names it.
type Caller struct {
	ProjectID, PipelineID string
	Source                string // such as trigger, web or schedule
	// Allowed means that the promotion's route names the project.
	Allowed bool
}

var (
	// ErrForeign means that a pipeline reports for a promotion that is not its
	// own.
	ErrForeign = errors.New("the promotion has another pipeline")
	// ErrUnknown means that there is no such promotion.
	ErrUnknown = errors.New("no such promotion")
)

// admit checks whether a pipeline may report for the promotion. If it may, it
// is recorded as one of the promotion's own.
func (p *Promotion) admit(c Caller, state State) error {
	name := pipelineName(c.ProjectID, c.PipelineID)
	if slices.Contains(p.Pipelines, name) {
		return nil
	}
	if p.ProjectID != "" && p.ProjectID != c.ProjectID || p.ProjectID == "" && !c.Allowed {
		return ErrForeign
	}
	switch {
	case c.PipelineID == "": // it is trusted
		return nil
	case p.Requests == 0:
		return ErrForeign // no pipeline was ever requested
	case c.Source == "trigger" && (len(p.Pipelines) == 0 || p.Lost): // whose answer was lost, or is not recorded yet
	case p.State == Failed: // by hand
	default:
		return ErrForeign
	}
	p.ProjectID = c.ProjectID
	if len(p.Pipelines) < maxPipelines {
		p.Pipelines = append(slices.Clip(p.Pipelines), name)
	}
	return nil
}

// accepts reports whether a report may change the state.
func (p *Promotion) accepts(next State) bool {
	if p.Requests == 0 {
		return false // no pipeline can report this
	}
	switch p.State {
	case Waiting, Starting, Triggered, Dead:
		return true
	case Running:
		return next != Running
	case Superseded:
		return p.By == ByTrigger
	case Failed:
		return next != Failed && next != Running || p.By == ByClock
	}
	return false // Promoted and Skipped stay
}

// report changes a promotion by a report of its pipeline.
func (r *record) report(p *Promotion, rep Report, repository *Repository) {
	reason := ""
	if rep.State == Failed {
		reason = PipelineFail
	}
	p.Text, p.Version = rep.Text, rep.Version
	if rep.PipelineURL != "" {
		p.PipelineURL = rep.PipelineURL
	}
	p.set(rep.State, ByPipeline, reason, "", "", r.now)
	r.ended(p, repository)
}

// ended records that the pipeline of p has ended, if it has.
func (r *record) ended(p *Promotion, repository *Repository) {
	r.handled(p)
	if !p.State.Ended() {
		return
	}
	repository.EndedAt = later(repository.EndedAt, r.now)
	r.group.EndedAt, r.group.RowOpen = r.now, false
	r.lookAgain(p)
}
