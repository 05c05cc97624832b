package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

var (
	chaosWebhooks = flag.Int("webhooks", 0, "how many webhooks TestChaos sends; 1,000 where CI is set, else 300")
	chaosSeed     = flag.Uint64("seed", 0, "of the choices that TestChaos makes; not of how the machine schedules them")
)

// Settings of the simulated Google Cloud.
const (
	chaosTopic   = "projects/demo/topics/hubrelay-pushes"
	chaosDead    = "projects/demo/topics/hubrelay-dead-letters"
	chaosLetters = "projects/demo/subscriptions/hubrelay-dead-letters"
	chaosLedger  = "firestore:projects/demo/databases/chaos"
	// With the waits of startPubSub they last longer than a lease, like the
	// deployed ones. Otherwise only reconcile would take over from a killed
	// process, after a quarter of an hour.
	chaosAttempts = 24
	chaosRepos    = 50 // each with a channel of its own, which takes a message a second

	// From this number of webhooks on, Docker Hub loses some. A lost one is
	// found ten minutes after the push, which is too long for a short run.
	chaosLosesFrom = 5000

	clockStep      = time.Second
	replayStep     = 5 * time.Second
	settleTime     = 25 * time.Minute
	restartEvery   = 400 * time.Millisecond
	ledgerAwayTime = 6 * time.Second
)

// TestChaos runs hubrelay as eight processes while everything around them
// fails. After the faults have ended, each image must be promoted, and Slack
// must say so.
func TestChaos(t *testing.T) {
	webhooks := *chaosWebhooks
	if webhooks == 0 {
		webhooks = 300
		if os.Getenv("CI") != "" {
			webhooks = 1000
		}
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: go test ./internal/e2e -run TestChaos -args -webhooks %d -seed %d", seed, webhooks, seed)
	command := filepath.Join(t.TempDir(), "hubrelay")
	if out, err := exec.Command("go", "build", "-o", command, "../../cmd/hubrelay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := newChaos(t, seed, webhooks >= chaosLosesFrom)
	stopClocks := c.runClocks()
	defer stopClocks()
	if c.loses { // pushes before reconcile knows the routes are not found
		c.until("reconcile knows the routes", func() error {
			if c.reconciled == 0 {
				return errors.New("it has not answered")
			}
			return nil
		})
	}

	began := time.Now()
	stopKilling := c.killAtRandom()
	c.send("a", webhooks/2)
	c.ledger.awayFor(ledgerAwayTime)
	c.send("b", webhooks-webhooks/2)
	stopKilling()
	c.report("under faults", began)

	// A rolling restart of everything, while pushes go on.
	var running sync.WaitGroup
	running.Go(func() { c.send("c", webhooks/10) })
	for _, i := range c.instances {
		i.restart(syscall.SIGTERM)
	}
	running.Wait()
	c.until("all that cannot be promoted is dead", c.allEnded)
	c.report("and a rolling restart", began)

	// The faults end, and people handle what failed or died.
	c.getWell()
	next := time.Now()
	c.until("every image is promoted, and Slack says so", func() error {
		if time.Now().After(next) {
			c.replay(command)
			next = time.Now().Add(replayStep)
		}
		return c.allPromoted()
	})
	c.replay(command)
	if left := c.replay(command); left != 0 {
		t.Errorf("%d dead letters are left, and come again and again", left)
	}
	c.jobs.Wait()
	c.until("what was replayed is a duplicate", c.allPromoted)
	c.report("and all is well", began)
}

// promotions reads the ledger, the newest first.
func (c *chaos) promotions() []ledger.Promotion {
	c.t.Helper()
	var all []ledger.Promotion
	for p, err := range c.book.All(c.t.Context()) {
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// current are the current promotions of each image: more than one only while
// one of them waits.
func current(all []ledger.Promotion) map[string][]ledger.Promotion {
	found := map[string][]ledger.Promotion{}
	for _, p := range all {
		if p.Current && !p.Note {
			found[imageOf(p)] = append(found[imageOf(p)], p)
		}
	}
	return found
}

func imageOf(p ledger.Promotion) string { return p.Repository + ":" + p.Tag }

func done(p ledger.Promotion) bool {
	return p.State == ledger.Promoted || p.State == ledger.Skipped && p.Reason != ledger.Unwanted
}

// lost returns the images that are neither promoted with the present digest of
// their tag, nor shown as failed or dead.
func (c *chaos) lost(all []ledger.Promotion) []string {
	promotions := current(all)
	c.mu.Lock()
	defer c.mu.Unlock()
	var lost []string
	for image := range c.accepted {
		why := ""
		for _, p := range promotions[image] {
			same := p.Digest == digestOf(image, c.tags[image]) || p.State == ledger.Dead && p.Digest == ""
			told := (p.State == ledger.Failed || p.State == ledger.Dead) && !p.Behind()
			if !same || !done(p) && !told {
				why += fmt.Sprintf(" promotion %.8s is %s %s and not shown, or of another image than version %d;", p.ID, p.State, p.Reason, c.tags[image])
			}
		}
		if len(promotions[image]) == 0 {
			why = " it has no promotion"
		}
		if why != "" {
			lost = append(lost, image+why)
		}
	}
	slices.Sort(lost)
	return lost
}

// allEnded returns what may still be started.
func (c *chaos) allEnded() error {
	promotions := current(c.promotions())
	c.mu.Lock()
	defer c.mu.Unlock()
	for image := range c.accepted {
		// An image that is missing and was not reported cannot be found yet.
		if len(promotions[image]) == 0 && !(c.loses && c.always(image, "missing", imagesMissing)) {
			return fmt.Errorf("%s has no promotion", image)
		}
	}
	for image, list := range promotions {
		for _, p := range list {
			if p.State == ledger.Waiting || p.State == ledger.Starting {
				return fmt.Errorf("%s is %s %s", image, p.State, p.Reason)
			}
		}
	}
	return nil
}

// allPromoted returns what is not as it must be after the faults have ended.
func (c *chaos) allPromoted() error {
	all := c.promotions()
	if lost := c.lost(all); len(lost) > 0 {
		return fmt.Errorf("%d images: %.500v", len(lost), lost)
	}
	for image, list := range current(all) {
		for _, p := range list {
			if !done(p) {
				return fmt.Errorf("%s is %s %s", image, p.State, p.Reason)
			}
		}
	}
	for _, p := range all {
		if !p.State.Ended() {
			return fmt.Errorf("%s was %s", imageOf(p), p.State)
		}
	}
	if wrong := c.notTrue(all); len(wrong) > 0 {
		return fmt.Errorf("%d messages: %.500v", len(wrong), wrong)
	}
	return nil
}

// emoji is the beginning of a message.
var emoji = map[ledger.State]string{
	ledger.Waiting: ":hourglass_flowing_sand:", ledger.Triggered: ":hourglass_flowing_sand:", ledger.Running: ":hourglass_flowing_sand:",
	ledger.Promoted: ":white_check_mark:", ledger.Skipped: ":fast_forward:", ledger.Superseded: ":fast_forward:",
	ledger.Failed: ":x:", ledger.Dead: ":rotating_light:",
}

// notTrue returns the promotions that Slack shows wrongly.
func (c *chaos) notTrue(all []ledger.Promotion) []string {
	messages, replies := map[string]slacktest.Message{}, map[string]bool{}
	for _, m := range c.slackFake.Messages() {
		if m.ThreadTS != "" {
			replies[m.Channel+m.ThreadTS] = true
		} else {
			messages[m.Channel+m.TS] = m
		}
	}
	continued := map[string]bool{} // images of which another promotion has taken over the message of a dead one
	for _, p := range all {
		if !p.Message.ReplayedAt.IsZero() {
			continued[imageOf(p)] = true
		}
	}
	var wrong []string
	for _, p := range all {
		name := fmt.Sprintf("%s, promotion %.8s, %s", imageOf(p), p.ID, p.State)
		m, found := messages[p.Channel+p.TS]
		visible := p.By == ledger.ByPipeline || p.State == ledger.Failed || p.State == ledger.Dead
		switch {
		case p.Behind():
			wrong = append(wrong, name+": is not shown")
		case p.TS == "" && visible && !(p.State == ledger.Dead && continued[imageOf(p)]):
			wrong = append(wrong, name+": has no message")
		case p.TS == "":
		case !found:
			wrong = append(wrong, name+": its message is not there")
		case !strings.HasPrefix(m.Text, emoji[p.State]) || !strings.Contains(m.Text, imageOf(p)):
			wrong = append(wrong, fmt.Sprintf("%s: Slack says %q", name, m.Text))
		case p.Bad() && !replies[p.Channel+p.TS]:
			wrong = append(wrong, name+": nobody was asked to look")
		}
	}
	return wrong
}

// until waits until check succeeds.
func (c *chaos) until(what string, check func() error) {
	c.t.Helper()
	var err error
	began := time.Now()
	said := began
	for time.Since(began) < settleTime {
		if err = check(); err == nil {
			return
		}
		if time.Since(said) > time.Minute {
			c.t.Logf("not yet, after %v: %v", time.Since(began).Round(time.Second), err)
			said = time.Now()
		}
		time.Sleep(time.Second)
	}
	for _, lost := range c.lost(c.promotions()) {
		image, _, _ := strings.Cut(lost, " ")
		c.logsOf(image)
		break
	}
	c.t.Fatalf("%s: not within %v: %v", what, settleTime, err)
}

// logsOf shows what the processes said of an image.
func (c *chaos) logsOf(image string) {
	_, tag, _ := strings.Cut(image, ":")
	for _, i := range c.instances {
		text, _ := os.ReadFile(i.log.Name())
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, `"`+tag+`"`) {
				c.t.Logf("%s %s", i.name, line)
			}
		}
	}
}

// said reads from the logs for which promotions the ledger was not updated, and
// how many messages may be there twice.
func (c *chaos) said() (unsure map[string]bool, twice int) {
	unsure = map[string]bool{}
	for _, i := range c.instances {
		text, err := os.ReadFile(i.log.Name())
		if err != nil {
			c.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var said struct {
				Message     string
				PromotionID string `json:"promotion_id"`
			}
			if json.Unmarshal([]byte(line), &said) != nil {
				continue
			}
			switch said.Message {
			case "ledger not updated":
				unsure[said.PromotionID] = true
			case "message may stand twice":
				twice++
			}
		}
	}
	return unsure, twice
}

// report prints the results, and fails the test if a promise was broken. Lost
// images and wrong messages count only after the faults have ended.
func (c *chaos) report(when string, began time.Time) {
	c.t.Helper()
	unsure, twice := c.said()
	all := c.promotions()
	states, notes := map[ledger.State]int{}, 0
	referenced := map[string]bool{}
	doubled := []string{}
	byImage := map[string][]ledger.Promotion{}
	for _, p := range all {
		if p.Note {
			notes++
			continue
		}
		states[p.State]++
		referenced[p.Channel+p.TS] = true
		if p.State != ledger.Waiting && p.Reason != ledger.Duplicate { // else its image is not known, or another's
			byImage[imageOf(p)] = append(byImage[imageOf(p)], p)
		}
	}
	var orphans []slacktest.Message // that belong to no promotion
	for _, m := range c.slackFake.Messages() {
		if m.ThreadTS == "" && !referenced[m.Channel+m.TS] {
			orphans = append(orphans, m)
		}
	}
	lost, wrong := c.lost(all), c.notTrue(all)

	c.mu.Lock()
	defer c.mu.Unlock()
	created, unanswered, unrecorded, unexplained := 0, 0, 0, 0
	for id, urls := range c.pipelines {
		created += len(urls)
		more := len(urls) - 1
		for _, url := range urls {
			if more > 0 && !c.answered[url] {
				unanswered++
				more--
			}
		}
		switch {
		case more > 0 && unsure[id]:
			unrecorded += more
		case more > 0:
			unexplained += more
			c.t.Logf("promotion %s has %v", id, urls)
		}
	}
	// An image whose tag has never moved is promoted once, unless it died.
	for image, list := range byImage {
		for i, older := range list[1:] { // newest first
			if c.moves[image] == 1 && older.State != ledger.Dead && !(c.dead[image] > 0 && endedAfterReplay(older, list[i])) {
				doubled = append(doubled, fmt.Sprintf("%s: %s and %s", image, story(list[0]), story(older)))
				c.logsOf(image)
			}
		}
	}
	letters := 0
	for _, n := range c.dead {
		letters += n
	}
	counts := ""
	for _, s := range slices.Sorted(maps.Keys(states)) {
		counts += fmt.Sprintf(" %s %d,", s, states[s])
	}
	var stray []string // orphans whose ts was not lost with the process that posted them
	for _, m := range orphans {
		if !slices.ContainsFunc(c.notifyKilled, func(at time.Time) bool { return at.After(m.PostedAt) && at.Sub(m.PostedAt) < 2*ledger.Timeout }) {
			stray = append(stray, m.TS+" "+m.Text)
		}
	}
	c.t.Logf("%s (%v, %d kills):\n"+
		"  accepted       %6d webhooks, of %d images; %d tags moved\n"+
		"  promotions     %6d:%s %d of one image without a reason\n"+
		"  pipelines      %6d; %d jobs were retried by hand, %d were silent\n"+
		"  duplicates     %6d whose answer never arrived, %d that the ledger could not be told of, %d without a reason\n"+
		"  dead letters   %6d, of %d images; %d were replayed\n"+
		"  found by look_by %4d; by asking Docker Hub %d, of %d webhooks that it lost\n"+
		"  reports refused  %4d; %d notes\n"+
		"  lost           %6d\n"+
		"  Slack not true %6d; %d messages stand twice, %d of them by a lost answer",
		when, time.Since(began).Round(time.Second), c.kills,
		c.calls, len(c.accepted), len(c.movedTags()), len(all)-notes, counts, len(doubled), created, c.retried, c.silences,
		unanswered, unrecorded, unexplained, letters, len(c.dead), c.replayed, c.overdue, c.found, c.lostCalls, c.refused, notes,
		len(lost), len(wrong), len(orphans), len(stray))
	if unexplained > 0 || len(doubled) > 0 || c.refused > 0 {
		c.t.Errorf("a promise was broken: %v", doubled)
	}
	if c.well && len(lost)+len(wrong)+notes > 0 || c.well && len(stray) > c.lostPosts+twice {
		c.t.Errorf("a promise was broken: %v %v %v", lost, wrong, stray)
	}
}

// endedAfterReplay reports whether a promotion can have been dead when the next
// one of its image began, although it is not dead now: the answer of GitLab was
// lost, and the pipeline reported after the dead letter was replayed.
func endedAfterReplay(older, next ledger.Promotion) bool {
	return older.Lost && !next.Message.ReplayedAt.IsZero() && older.UpdatedAt.After(next.CreatedAt)
}

// story is the history of a promotion, as far as its record shows it.
func story(p ledger.Promotion) string {
	return fmt.Sprintf("%.8s %s %s by %s, %s to %s, pushed %s, queued %s, replayed %s", p.ID, p.State, p.Reason, p.By,
		p.CreatedAt.Format(time.TimeOnly), p.UpdatedAt.Format(time.TimeOnly), p.Message.PushedAt.Format(time.TimeOnly),
		p.Message.QueuedAt.Format(time.TimeOnly), p.Message.ReplayedAt.Format(time.TimeOnly))
}

func (c *chaos) movedTags() []string {
	var moved []string
	for image, n := range c.moves {
		if n > 1 {
			moved = append(moved, image)
		}
	}
	return moved
}

var queuedAgain = regexp.MustCompile(`(\d+) queued again\n`)

// replay queues all dead letters again with the command, and returns their
// number.
func (c *chaos) replay(command string) int {
	c.t.Helper()
	cmd := exec.Command(command, "replay", "-apply", "-subscription", chaosLetters)
	cmd.Env = append(os.Environ(), "PUBSUB_EMULATOR_HOST="+c.pubsubHost)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("replay: %v\n%s", err, out)
	}
	last := queuedAgain.FindAllSubmatch(out, -1)
	if len(last) == 0 {
		c.t.Fatalf("replay says\n%s", out)
	}
	n, _ := strconv.Atoi(string(last[len(last)-1][1]))
	c.mu.Lock()
	c.replayed += n
	c.mu.Unlock()
	return n
}

// send sends about n webhooks in bursts: for each image once, or six times
// together with six different times. Some tags move, and some of these move
// back, while earlier webhooks are still in progress. A webhook that is not
// accepted is sent again, as a person would do.
func (c *chaos) send(series string, n int) {
	var running sync.WaitGroup
	for sent, i := 0, 0; sent < n; i++ {
		image := fmt.Sprintf("acme/r%02d:%s-%d", i%chaosRepos, series, i)
		versions := []int{1}
		switch {
		case c.always(image, "moves", tagsMove):
			versions = []int{1, 2}
		case c.always(image, "moves back", tagsMove):
			versions = []int{1, 2, 1}
		}
		times := 1
		if c.always(image, "multi-arch", multiArch) {
			times = 6
		}
		running.Go(func() {
			for _, version := range versions {
				c.moveTag(image, version)
				var calls sync.WaitGroup
				for k := range times {
					calls.Go(func() { c.push(image, time.Now().Add(time.Duration(k)*time.Second)) })
				}
				calls.Wait()
				time.Sleep(rand.N(moveStep))
			}
		})
		if sent += times * len(versions); i%50 == 49 {
			running.Wait()
		}
	}
	running.Wait()
}

func (c *chaos) push(image string, at time.Time) {
	repository, tag, _ := strings.Cut(image, ":")
	if c.loses && c.always(image, at.String(), webhooksLost) { // nobody calls again
		c.mu.Lock()
		c.accepted[image] = true
		c.lostCalls++
		c.mu.Unlock()
		return
	}
	for range 100 {
		res, err := c.http.Post(c.webhooks.URL+"/"+webhookToken, "application/json", strings.NewReader(webhookBody(repository, tag, int(at.Unix()))))
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusAccepted {
				c.mu.Lock()
				c.accepted[image] = true
				c.calls++
				c.mu.Unlock()
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	c.t.Errorf("%s is not accepted", image)
}

// killAtRandom kills processes and starts them again until stop is called.
func (c *chaos) killAtRandom() (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		rng := rand.New(rand.NewPCG(c.seed, 1))
		for {
			select {
			case <-ended:
				return
			case <-time.After(rand.N(2 * restartEvery)):
				i := c.instances[rng.IntN(len(c.instances))]
				c.mu.Lock()
				if c.kills++; i.target == "Notify" {
					c.notifyKilled = append(c.notifyKilled, time.Now())
				}
				c.mu.Unlock()
				i.restart(syscall.SIGKILL)
			}
		}
	})
	return func() {
		close(ended)
		running.Wait()
	}
}

// clocksAtOnce is how many calls of one clock may overlap.
const clocksAtOnce = 3

// runClocks calls /tick and /reconcile as Cloud Scheduler would, until stop is
// called.
func (c *chaos) runClocks() (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	for _, url := range []string{c.notifies.URL + "/tick", c.triggers.URL + "/reconcile"} {
		turns := make(chan struct{}, clocksAtOnce)
		running.Go(func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(clockStep):
				}
				select {
				case turns <- struct{}{}:
					running.Go(func() {
						defer func() { <-turns }()
						c.ring(url)
					})
				default:
				}
			}
		})
	}
	return func() {
		close(ended)
		running.Wait()
	}
}

// ring calls a clock's path once.
func (c *chaos) ring(url string) {
	token, err := c.googleToken()
	if err != nil {
		c.t.Error(err)
		return
	}
	req, err := http.NewRequest(http.MethodPost, url, nil)
	if err != nil {
		c.t.Error(err)
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		return
	}
	defer res.Body.Close()
	var said struct{ Queued, Found int }
	if res.StatusCode == http.StatusOK && json.NewDecoder(res.Body).Decode(&said) == nil {
		c.mu.Lock()
		c.overdue += said.Queued
		c.found += said.Found
		if strings.HasSuffix(url, "/reconcile") {
			c.reconciled++
		}
		c.mu.Unlock()
	}
}
