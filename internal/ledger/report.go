package ledger

import (
	"errors"
	"slices"
)

// Report is what a pipeline says to Notify.
type Report struct {
	State       State // Running, Promoted, Skipped, Superseded or Failed
	Digest      string
	PipelineURL string
	Text        string
	Version     string
	// From is the pipeline that its id token names, nil where the caller has
	// shown a shared token, and is taken at its word.
	From *Caller
}

// Caller is a GitLab pipeline, as an id token names it.
type Caller struct {
	ProjectID, PipelineID string
	Source                string // such as trigger, web or schedule
	// Allowed says that the project is the one that the promotion's route names.
	Allowed bool
}

var (
	// ErrForeign says that a pipeline reports for a promotion that is not its.
	ErrForeign = errors.New("the promotion has another pipeline")
	// ErrUnknown says that there is no such promotion.
	ErrUnknown = errors.New("no such promotion")
)

// admit tells whether a pipeline may report for the promotion, and takes it
// for one of the promotion's own where it may.
func (p *Promotion) admit(c Caller, state State) error {
	name := pipelineName(c.ProjectID, c.PipelineID)
	if slices.Contains(p.Pipelines, name) {
		return nil
	}
	if p.ProjectID != "" && p.ProjectID != c.ProjectID || p.ProjectID == "" && !c.Allowed {
		return ErrForeign
	}
	switch {
	case c.PipelineID == "": // it is taken at its word
		return nil
	case p.Requests == 0:
		return ErrForeign // GitLab was never asked for one
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

// accepts tells whether a report moves the promotion on.
func (p *Promotion) accepts(next State) bool {
	if p.Requests == 0 {
		return false // there is no pipeline that could report
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

// report moves a promotion on by what its pipeline says.
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
