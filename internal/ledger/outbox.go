package ledger

import "time"

const (
	// retryMin doubles with each refusal of Slack, up to retryMax.
	retryMin = time.Minute
	retryMax = time.Hour

	// silenceMax is how much the end of a repository's last promotion may put
	// off what counts as silence.
	silenceMax = 6 * time.Hour
	// silenceFails is how long after it was told a silent promotion is failed.
	silenceFails = 6 * time.Hour
	// askEvery is how long a pipeline must have said nothing until reconcile may
	// ask GitLab about it, and how often it may.
	askEvery = 8 * time.Minute
	// askedLately is for how long GitLab's word, asked by reconcile, stands in
	// the place of a report.
	askedLately = 15 * time.Minute
)

// tellAfter is how long a promotion waits before people hear of it, by what it
// waits for.
func tellAfter(reason string) time.Duration {
	switch reason {
	case "registry_denied", "reference_not_found", "forbidden": // a person has to mend it
		return 10 * time.Minute
	}
	return time.Hour // it may pass
}

// Outbox is what Slack shows of a promotion, beside what it is to show. A
// revision is a change that people must hear of.
type Outbox struct {
	Revision int64  `firestore:"revision"` // the newest
	Shown    int64  `firestore:"shown"`    // the one that the message shows
	Replied  int64  `firestore:"replied"`  // the one that the last reply in the thread was about
	Channel  string `firestore:"channel"`  // of the message: its ID; "" where there is none
	TS       string `firestore:"ts"`       // of the message

	WaitsSince  time.Time `firestore:"waits_since"`  // zero where it does not wait
	ToldWaiting bool      `firestore:"told_waiting"` // people are to hear that it waits
	SilentSince time.Time `firestore:"silent_since"` // since when people are to hear that its pipeline is silent
	AskedAt     time.Time `firestore:"asked_at"`     // when GitLab said last how the pipeline goes
	AskAt       time.Time `firestore:"ask_at"`       // when reconcile may ask it; zero: never
	NotAsked    time.Time `firestore:"not_asked"`    // when it could not be asked last
	JobWaits    string    `firestore:"job_waits"`    // what GitLab's job waits for; "" where it does not
	ToldJob     bool      `firestore:"told_job"`     // people are to hear that it waits

	Refusals  int       `firestore:"refusals"`   // of Slack, in a row
	RetryAt   time.Time `firestore:"retry_at"`   // when the clock may try again
	ShowToken int64     `firestore:"show_token"` // the fencing token of whoever shows it
	ShowEnds  time.Time `firestore:"show_ends"`  // their lease; zero where it was given back
}

// hasMessage tells whether there is a message in Slack, or may be one: somebody
// is posting it, or did and has not come back.
func (o *Outbox) hasMessage() bool { return o.TS != "" || !o.ShowEnds.IsZero() }

// showing tells whether somebody is at the message.
func (o *Outbox) showing(now time.Time) bool { return now.Before(o.ShowEnds) }

// takeOver goes on with the message of a promotion that is dead.
func (p *Promotion) takeOver(dead *Promotion) {
	if p.hasMessage() || p.Revision > 0 {
		return
	}
	p.Revision, p.Shown, p.Replied = dead.Revision, dead.Shown, dead.Replied
	p.Channel, p.TS = dead.Channel, dead.TS
	dead.Channel, dead.TS = "", ""
	dead.Shown, dead.Replied = dead.Revision, dead.Revision
}

// Silent tells whether people are to hear that the pipeline is silent.
func (p *Promotion) Silent() bool { return !p.SilentSince.IsZero() }

// visible tells whether people are to see the state: by a message of its own,
// or because the one that there is would not be true.
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

// Bad tells whether what is to be seen is bad news.
func (p *Promotion) Bad() bool {
	return p.State == Failed || p.State == Dead || p.State == Waiting && p.ToldWaiting || p.Silent() || p.ToldJob
}

// Behind tells whether Slack does not show what it is to show.
func (p *Promotion) Behind() bool {
	return p.visible() && (p.Revision > p.Shown || p.Bad() && p.Revision > p.Replied)
}

// heardOf is when a pipeline that is under way was last heard of. While others
// of the repository go first, which can be seen by their ends, it has nothing
// to say.
func (p *Promotion) heardOf(repository time.Time) time.Time {
	return later(p.UpdatedAt, earlier(repository, p.UpdatedAt.Add(silenceMax)))
}

// tick is what the clock makes of a promotion: what people wait to hear of
// becomes a revision. repository is when a promotion of the repository ended
// last.
func (p *Promotion) tick(now, repository time.Time, silentAfter time.Duration) {
	switch {
	case p.State == Waiting && !p.ToldWaiting && !now.Before(p.WaitsSince.Add(tellAfter(p.Reason))):
		p.ToldWaiting = true
		p.Revision++
	case !p.underWay():
	case now.Before(p.AskedAt.Add(askedLately)): // GitLab's word stands in the place of a report
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

// schedule sets when the clock must look at the promotion again. Where
// silentAfter is not known it is 0: the clock then looks at once.
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

// shown records what became of an attempt to show a revision.
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
