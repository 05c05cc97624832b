package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/slack"
)

// watch sees everything, and reports broken promises.
type watch struct {
	w      *world
	broken []string

	states  map[string]ledger.Promotion // as they were committed last
	deaths  map[string]int              // by tag: promotions that died
	letters map[string]int              // by tag: dead letters
	replays map[string]int              // by tag: dead letters that were queued again
	looks   map[string]time.Time        // by tag: when the registry answered the last look that was recorded
	revived map[string]time.Time        // by tag: when a replay was queued that has looked at the tag, and seen what it is
	waits   map[string]time.Time        // by tag: when the message was queued that was queued last of those that wait
}

func newWatch(w *world) *watch {
	return &watch{
		w: w, states: map[string]ledger.Promotion{}, deaths: map[string]int{}, letters: map[string]int{}, replays: map[string]int{},
		looks: map[string]time.Time{}, waits: map[string]time.Time{}, revived: map[string]time.Time{},
	}
}

func (c *watch) breaks(promise, format string, args ...any) {
	line := promise + ": " + randomID.ReplaceAllStringFunc(fmt.Sprintf(format, args...), c.w.name)
	c.w.tell("*** %s", line)
	c.broken = append(c.broken, line)
}

// leavesTo is the table of states.
var leavesTo = map[ledger.State][]ledger.State{
	ledger.Waiting:   {ledger.Starting, ledger.Triggered, ledger.Running, ledger.Promoted, ledger.Skipped, ledger.Superseded, ledger.Failed, ledger.Dead},
	ledger.Starting:  {ledger.Waiting, ledger.Triggered, ledger.Running, ledger.Promoted, ledger.Skipped, ledger.Superseded, ledger.Failed, ledger.Dead},
	ledger.Triggered: {ledger.Running, ledger.Promoted, ledger.Skipped, ledger.Superseded, ledger.Failed, ledger.Dead},
	ledger.Running:   {ledger.Promoted, ledger.Skipped, ledger.Superseded, ledger.Failed, ledger.Dead},
	ledger.Failed:    {ledger.Promoted, ledger.Skipped, ledger.Superseded},
	ledger.Dead:      {ledger.Running, ledger.Promoted, ledger.Skipped, ledger.Superseded, ledger.Failed},
}

// committed sees every change of a record.
func (c *watch) committed(ctx context.Context, b ledger.Batch) {
	t := taskOf(ctx)
	if t.instance.kind == "trigger" && t.message != nil && !t.asked.IsZero() {
		for _, tag := range b.Tags {
			if t.asked.Before(c.looks[tag.ID()]) {
				c.breaks("L1", "what %s saw overrules a newer look at %s:%s", t.name, tag.Repository, tag.Tag)
			}
			c.looks[tag.ID()] = t.asked
		}
		t.asked = time.Time{} // GitLab's answer is not a look
	}
	if m := t.message; m != nil && t.truth != "" && m.attributes["replayed_at"] != "" && !m.letter {
		c.revived[t.truth] = m.queued
	}
	for _, p := range b.Promotions {
		was, known := c.states[p.ID]
		c.states[p.ID] = *p
		switch {
		case p.Note:
			continue
		case p.State == ledger.Dead && (!known || was.State != ledger.Dead):
			c.died(t, p)
		}
		if p.State == ledger.Waiting && t.message != nil && t.instance.kind == "trigger" && t.message.queued.After(c.waits[p.Key.ID()]) {
			c.waits[p.Key.ID()] = t.message.queued
		}
		if p.State == ledger.Triggered || p.State == ledger.Running || p.State.Ended() {
			delete(c.waits, p.Key.ID())
		}
		if !known {
			continue
		}
		if p.State != was.State {
			allowed := slices.Contains(leavesTo[was.State], p.State)
			switch {
			case was.State == ledger.Superseded && was.By == ledger.ByTrigger:
				allowed = p.By == ledger.ByPipeline
			case was.State == ledger.Failed && was.By == ledger.ByClock && p.State == ledger.Running:
				allowed = true
			}
			if !allowed {
				c.breaks("P3", "%s goes from %s to %s", p.ID, was.State, p.State)
			}
		}
		if p.TS != was.TS && was.TS != "" && c.w.messages[was.Channel+" "+was.TS] != nil && !c.w.gone[was.Channel+" "+was.TS] && p.TS != "" {
			c.breaks("P7", "%s has another message, though the old one takes updates", p.ID)
		}
		switch {
		case was.Digest != "" && was.Digest != p.Digest:
			c.breaks("promotion", "%s was of %s and is of %s", p.ID, short(was.Digest), short(p.Digest))
		case p.Revision < was.Revision:
			c.breaks("P7", "%s goes back from revision %d to %d", p.ID, was.Revision, p.Revision)
		}
	}
}

// died sees every death.
func (c *watch) died(t *task, p *ledger.Promotion) {
	image := p.Repository + ":" + p.Tag
	c.deaths[image]++
	if c.deaths[image] > c.letters[image] {
		c.breaks("P4", "%s is dead before there is a letter", p.ID)
	}
	if p.By != ledger.ByNotify || t.message == nil {
		return
	}
	queued, err := time.Parse(time.RFC3339Nano, t.message.attributes["CloudPubSubDeadLetterSourceTopicPublishTime"])
	if last := c.waits[p.Key.ID()]; err == nil && queued.Before(last.Truncate(time.Millisecond)) {
		c.breaks("L2", "%s died by a letter of %v, though a message of %v waits", p.ID, queued.Sub(c.w.began), last.Sub(c.w.began))
	}
}

// buried sees every dead letter.
func (c *watch) buried(m *message) { c.letters[m.attributes["repository"]+":"+m.attributes["tag"]]++ }

// replayed sees every dead letter that is queued again.
func (c *watch) replayed(m *message) { c.replays[m.attributes["repository"]+":"+m.attributes["tag"]]++ }

// reported sees the answer to every report.
func (c *watch) reported(p *pipeline, code int, answer string) {
	known := c.states[p.promotion]
	switch {
	case code == 200 || code == 202 || code >= 500 || code == 0:
	case code == 403 && p.id >= 1000: // a stranger
	case code == 403 && p.source == "web" && known.State != ledger.Failed:
	// It is not known whose project it is, or was not when the report arrived.
	case code == 403 && c.w.renamed && (len(known.Pipelines) == 0 || time.Since(known.UpdatedAt) < time.Minute):
	default:
		c.breaks("report", "pipeline %d of %s is answered %d %s", p.id, p.promotion, code, answer)
	}
	if strings.HasSuffix(p.digest, "1267") && strings.Contains(answer, "digest") == (known.Digest == p.digest) && code < 300 && known.ID != "" {
		c.breaks("report", "a report of another image than %s is answered %d %s", p.promotion, code, answer)
	}
	if p.id >= 1000 && (code == 200 || code == 202) && !known.Lost && !strings.Contains(answer, "warning") &&
		!slices.Contains(known.Pipelines, fmt.Sprintf("%s/%d", p.projectID, p.id)) {
		c.breaks("P6", "a stranger's report for %s was taken", p.promotion)
	}
}

// expected is what Slack must show of a state.
var expected = map[ledger.State]slack.Status{
	ledger.Waiting: slack.Waiting, ledger.Triggered: slack.Running, ledger.Running: slack.Running, ledger.Promoted: slack.Success,
	ledger.Skipped: slack.Skipped, ledger.Superseded: slack.Superseded, ledger.Failed: slack.Failure, ledger.Dead: slack.Dead,
}

func (w *world) expected(p ledger.Promotion) slack.Status {
	switch {
	case p.Silent():
		return slack.Silent
	case p.ToldJob:
		return slack.Waiting
	}
	return expected[p.State]
}

// check checks everything, once all is quiet.
func (c *watch) check() {
	ctx := context.Background()
	w := c.w
	byTag := map[string][]ledger.Promotion{}
	shownBy := map[string]string{}
	for p := range w.store.All(ctx) {
		image := p.Repository + ":" + p.Tag
		if !p.Note {
			byTag[image] = append(byTag[image], *p)
		}
		if p.Behind() {
			c.breaks("P7", "Slack is behind with %s, which is %s (revision %d, shown %d, replied %d)", p.ID, p.State, p.Revision, p.Shown, p.Replied)
		}
		c.checkMessage(*p)
		if p.TS != "" {
			ref := p.Channel + " " + p.TS
			if other := shownBy[ref]; other != "" {
				c.breaks("P7", "%s and %s share a message", p.ID, other)
			}
			shownBy[ref] = p.ID
		}
		if created := c.pipelinesOf(p.ID); created > 1+w.lostAnswers[p.ID] {
			c.breaks("P2", "%s has %d pipelines, and %d answers were lost", p.ID, created, w.lostAnswers[p.ID])
		}
		if !p.Note && !p.State.Ended() && !(w.mayAsk && p.ToldJob) { // what GitLab says to wait may wait for ever

			c.breaks("P1", "%s of %s is %s for ever", p.ID, image, p.State)
		}
	}
	for image := range w.images {
		c.checkTag(image, byTag[image])
	}
}

func (c *watch) pipelinesOf(id string) (n int) {
	for _, p := range c.w.pipelines {
		if p.promotion == id && p.source == "trigger" {
			n++
		}
	}
	return n
}

// checkMessage checks P7: the messages in Slack are correct.
func (c *watch) checkMessage(p ledger.Promotion) {
	w := c.w
	if p.TS == "" {
		found, ok := w.table.Find(p.Repository)
		quiet := ok && found.Slack.Tell == route.TellFailures && !p.Bad() || w.tables > 1 // it may have been quiet before
		visible := slices.Contains([]ledger.State{ledger.Running, ledger.Promoted, ledger.Failed, ledger.Dead}, p.State) || p.By == ledger.ByPipeline
		// A replay takes over the message of the death.
		if visible && !quiet && p.State != ledger.Dead {
			c.breaks("P7", "nobody hears of %s, which is %s", p.ID, p.State)
		}
		return
	}
	there := w.messages[p.Channel+" "+p.TS]
	switch {
	case there == nil: // somebody has deleted it, once it showed everything
		if p.Behind() {
			c.breaks("P7", "the message of %s is not there", p.ID)
		}
	case w.archived[p.Channel] && p.Shown < p.Revision:
		c.breaks("P7", "the message of %s is in an archived channel", p.ID)
	case there.Status != w.expected(p) && p.State != ledger.Starting:
		c.breaks("P7", "Slack says %s of %s, which is %s", there.Status, p.ID, p.State)
	case there.PromotionID != p.ID:
		c.breaks("P7", "the message of %s is about %s", p.ID, there.PromotionID)
	}
}

// checkTag checks P1 and P4 of a tag.
func (c *watch) checkTag(image string, promotions []ledger.Promotion) {
	w := c.w
	repository, tag, _ := strings.Cut(image, ":")
	now := w.now(image)
	pushes := 0
	var last *push
	for _, p := range w.webhooks {
		if p.image == image {
			pushes++
			last = p
		}
	}
	if len(promotions) > 60 {
		c.breaks("P3", "%s was promoted %d times", image, len(promotions))
	}
	found, ok := w.table.Find(repository)
	most := pushes + c.replays[image] + w.repushes[image]
	for _, v := range w.images[image] { // a webhook that comes late waits for a tag that was deleted
		if v.digest == "" {
			most++
		}
	}
	if found.OncePer == route.OncePerDelivery { // each webhook dies by itself
		most += 5 * pushes
	}
	if c.deaths[image] > most {
		c.breaks("P4", "%s died %d times, of %d pushes and replays", image, c.deaths[image], most)
	}
	if now == "" || !ok || !found.Allows(tag) || found.OncePer == route.OncePerDelivery {
		return
	}
	// A push that was lost before reconcile knew the route with its present
	// rules need not be promoted.
	progress, _, _ := w.store.Progress(context.Background())
	if progress == nil || progress.Rules[found.Key].Text != found.Rules() || !last.at.After(progress.Rules[found.Key].Since) {
		return
	}
	tags, _, _ := w.store.Tags(context.Background(), ledger.Key{Repository: repository, Tag: tag}.ID())
	if tags[0] == nil {
		c.breaks("P1", "%s has no record", image)
		return
	}
	i := slices.IndexFunc(promotions, func(p ledger.Promotion) bool { return p.ID == tags[0].Settled })
	switch {
	case tags[0].Pending != "":
		c.breaks("P1", "%s waits for ever", image)
		return
	case i < 0:
		c.breaks("P1", "%s has no promotion", image)
		return
	}
	p := promotions[i]
	switch {
	case p.Digest != now && !(p.State == ledger.Dead && p.Digest == "" && !p.UpdatedAt.Before(last.at)):
		c.breaks("P1", "%s is %s, and its newest promotion %s of %s (%s)", image, short(now), p.ID, short(p.Digest), p.State)
	case p.State == ledger.Superseded, p.State == ledger.Skipped && p.Reason == ledger.Unwanted:
		c.breaks("P1", "%s has ended %s", image, p.State)
	case p.State == ledger.Dead && c.revived[image].After(p.UpdatedAt):
		c.breaks("P5", "%s was replayed after %s was dead, and nothing began", image, p.ID)
	case (p.State == ledger.Failed || p.State == ledger.Dead) && last.at.After(p.UpdatedAt.Add(2*time.Second)) && last.at.After(p.CreatedAt.Add(61*time.Second)):
		c.breaks("P5", "%s was pushed after %s was %s, and nothing began", image, p.ID, p.State)
	case !tags[0].LookBy.IsZero():
		c.breaks("L3", "%s is to be looked at by %v", image, tags[0].LookBy.Sub(w.began).Round(time.Second))
	}
}
