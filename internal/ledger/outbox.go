package ledger

import "time"

const (
	// retryMin doubles with each refusal of Slack, up to retryMax.
	retryMin = time.Minute
	retryMax = time.Hour

	// silenceMax is how much the end of a repository's last promotion may
	// postpone silence.
	silenceMax = 6 * time.Hour
	// silenceFails is how long after silence was noticed a promotion becomes
	// failed.
	silenceFails = 6 * time.Hour
	// askEvery is how long a pipeline must not have reported before reconcile
	// may ask GitLab about it. It is also the least time between two questions.
	askEvery = 8 * time.Minute
	// askedLately is how long an answer that GitLab gave to reconcile counts
	// like a report.
	askedLately = 15 * time.Minute
)

// tellAfter is how long a promotion waits before Slack shows that it waits, by
// the reason.
func tellAfter(reason string) time.Duration {
	switch reason {
	case "registry_denied", "reference_not_found", "forbidden": // a person has to fix it
		return 10 * time.Minute
	}
	return time.Hour // it may end by itself
}

// Outbox is what Slack shows of a promotion, and what it should show. A
// revision is a change that people must see.
type Outbox struct {
	Revision int64  `firestore:"revision"` // the newest
	Shown    int64  `firestore:"shown"`    // the one that the message shows
	Replied  int64  `firestore:"replied"`  // the one that the last reply in the thread was about
	Channel  string `firestore:"channel"`  // of the message: its ID; "" if there is none
	TS       string `firestore:"ts"`       // of the message

	WaitsSince  time.Time `firestore:"waits_since"`  // zero if it does not wait
	ToldWaiting bool      `firestore:"told_waiting"` // Slack must show that it waits
	SilentSince time.Time `firestore:"silent_since"` // since when Slack must show that its pipeline is silent
	AskedAt     time.Time `firestore:"asked_at"`     // when GitLab last answered about the pipeline
	AskAt       time.Time `firestore:"ask_at"`       // when reconcile may ask it; zero: never
	NotAsked    time.Time `firestore:"not_asked"`    // when asking it last failed
	JobWaits    string    `firestore:"job_waits"`    // what GitLab's job waits for; "" if it does not
	ToldJob     bool      `firestore:"told_job"`     // Slack must show that it waits

	Refusals  int       `firestore:"refusals"`   // of Slack, in a row
	RetryAt   time.Time `firestore:"retry_at"`   // when the clock may try again
	ShowToken int64     `firestore:"show_token"` // the fencing token of the request that shows it
	ShowEnds  time.Time `firestore:"show_ends"`  // its lease; zero if it was given back
}

// hasMessage reports whether there is a message in Slack, or may be one,
// because a request is posting it, or did so and has not recorded it.
func (o *Outbox) hasMessage() bool { return o.TS != "" || !o.ShowEnds.IsZero() }

// showing reports whether a request is showing the promotion.
func (o *Outbox) showing(now time.Time) bool { return now.Before(o.ShowEnds) }

// takeOver continues the message of a dead promotion.
func (p *Promotion) takeOver(dead *Promotion) {
	if p.hasMessage() || p.Revision > 0 {
		return
	}
	p.Revision, p.Shown, p.Replied = dead.Revision, dead.Shown, dead.Replied
	p.Channel, p.TS = dead.Channel, dead.TS
	dead.Channel, dead.TS = "", ""
	dead.Shown, dead.Replied = dead.Revision, dead.Revision
}

// Silent reports whether Slack must show that the pipeline is silent.
func (p *Promotion) Silent() bool { return !p.SilentSince.IsZero() }

// visible reports whether Slack must show the state: because it needs a
// message, or because the existing message would be wrong.
func (p *Promotion) visible() bool {
	switch p.State {
	case Running, Promoted, Failed, Dead:
		return true
	case Skipped, Superseded:
		return p.By == ByPipeline || p.hasMessage()
	case Waiting:
		return p.ToldWaiting || p.hasMessage()
	case Triggered:
		return p.Silent() || p.ToldJob || p.hasMessage()
	}
	return false
}

// Bad reports whether the state that Slack shows is a failure.
func (p *Promotion) Bad() bool {
	return p.State == Failed || p.State == Dead || p.State == Waiting && p.ToldWaiting || p.Silent() || p.ToldJob
}

// Behind reports whether Slack does not show the newest revision.
func (p *Promotion) Behind() bool {
	return p.visible() && (p.Revision > p.Shown || p.Bad() && p.Revision > p.Replied)
}

// heardOf is when a pipeline in progress last gave a sign. While other
// promotions of the repository run first, it cannot report: so the end of the
// last of them counts, too.
func (p *Promotion) heardOf(repository time.Time) time.Time {
	return later(p.UpdatedAt, earlier(repository, p.UpdatedAt.Add(silenceMax)))
}

// tick applies the clock to a promotion: what Slack must show by now becomes a
// revision. repository is when a promotion of the repository ended last.
func (p *Promotion) tick(now, repository time.Time, silentAfter time.Duration) {
	switch {
	case p.State == Waiting && !p.ToldWaiting && !now.Before(p.WaitsSince.Add(tellAfter(p.Reason))):
		p.ToldWaiting = true
		p.Revision++
	case !p.underWay():
	case now.Before(p.AskedAt.Add(askedLately)): // GitLab's answer counts like a report
		if p.JobWaits != "" && !p.ToldJob && !now.Before(p.heardOf(repository).Add(silentAfter)) {
			p.ToldJob = true
			p.Revision++
		}
	case !p.Silent() && !now.Before(p.heardOf(repository).Add(silentAfter)):
		p.SilentSince = now
		p.Revision++
	case p.Silent() && !now.Before(p.SilentSince.Add(silenceFails)):
		p.set(Failed, ByClock, Silence, "", "", now)
	}
}

// schedule sets when the clock must look at the promotion again. A silentAfter
// of 0 means that it is not known: the clock then looks immediately.
func (p *Promotion) schedule(now, repository time.Time, silentAfter time.Duration) {
	p.DueAt = time.Time{}
	due := func(at time.Time) {
		if p.DueAt.IsZero() || at.Before(p.DueAt) {
			p.DueAt = at
		}
	}
	if p.Behind() {
		due(later(now, later(p.RetryAt, p.ShowEnds)))
	}
	switch {
	case p.State == Waiting && !p.ToldWaiting:
		due(p.WaitsSince.Add(tellAfter(p.Reason)))
	case !p.underWay():
	case p.Silent():
		due(later(p.SilentSince.Add(silenceFails), p.AskedAt.Add(askedLately)))
	case p.JobWaits != "" && !p.ToldJob:
		due(p.heardOf(repository).Add(silentAfter))
	default:
		due(later(p.heardOf(repository).Add(silentAfter), p.AskedAt.Add(askedLately)))
	}
	if p.AskAt = (time.Time{}); p.underWay() && len(p.Pipelines) > 0 {
		p.AskAt = later(later(p.UpdatedAt, p.AskedAt), p.NotAsked).Add(askEvery)
	}
	p.expire()
}

// shown records the result of an attempt to show a revision.
func (p *Promotion) shown(r Result, now time.Time) {
	p.ShowEnds = time.Time{}
	if r.TS != "" {
		p.Channel, p.TS = r.Channel, r.TS
	}
	if r.Message {
		p.Shown = r.Revision
	}
	if r.Reply {
		p.Replied = r.Revision
	}
	if r.Message && r.Reply {
		p.Refusals, p.RetryAt = 0, time.Time{}
		return
	}
	wait := retryMax
	if p.Refusals < 6 { // 2⁶ minutes are over an hour
		wait = retryMin << p.Refusals
	}
	if r.Busy { // Slack was not asked
		wait = retryMin
	} else {
		p.Refusals++
	}
	p.RetryAt = now.Add(max(wait, r.RetryAfter))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
