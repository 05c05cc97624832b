package ledger

import (
	"context"
	"strings"
	"time"
)

// JobState is what GitLab says of the job that promotes.
type JobState struct {
	State   State  // Failed if the promotion has ended; Running if it continues or waits
	Reason  string // of Failed; of Running what it waits for, "" if it runs
	Hint    string
	Unknown bool // GitLab could not be asked
}

// Unheard returns up to limit promotions whose pipelines have not reported for
// a few minutes. The one that GitLab was asked about longest ago comes first.
func (l *Ledger) Unheard(ctx context.Context, limit int) ([]Promotion, error) {
	return search(ctx, l, "find pipelines that say nothing", l.store.Unheard, limit)
}

// Asked records what GitLab says about a promotion that Unheard returned. If
// the pipeline has reported in the meantime, nothing changes.
func (l *Ledger) Asked(ctx context.Context, asked Promotion, j JobState) error {
	return l.again(ctx, func(ctx context.Context) error {
		s, p, err := l.promotion(ctx, asked.ID, true)
		if err != nil {
			return err
		}
		if p.State != asked.State || !p.UpdatedAt.Equal(asked.UpdatedAt) {
			return nil
		}
		if s.asked(p, j); p.State.Ended() {
			s.ended(p, s.repository)
		}
		return s.commit(ctx, 0)
	})
}

// asked applies GitLab's answer in the same way as a report.
func (r *record) asked(p *Promotion, j JobState) {
	if j.Unknown {
		p.NotAsked = r.now
		return
	}
	p.AskedAt = r.now
	if j.State == Failed {
		p.set(Failed, ByReconcile, j.Reason, j.Hint, "", r.now)
		return
	}
	told := p.Silent() || p.ToldJob && p.JobWaits != j.Reason
	p.SilentSince, p.Hint = time.Time{}, j.Hint
	p.JobWaits, p.ToldJob = j.Reason, p.ToldJob && j.Reason != ""
	if told {
		p.Revision++
	}
}

// PipelineID is the newest of the promotion's own pipelines in GitLab, "" if
// none is known.
func (p Promotion) PipelineID() string {
	if len(p.Pipelines) == 0 {
		return ""
	}
	_, id, _ := strings.Cut(p.Pipelines[len(p.Pipelines)-1], "/")
	return id
}
