package console

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// pageView is the whole page.
type pageView struct {
	Run           string
	After         int64 // the newest event that the page knows of
	List          list
	Filters       any
	WebhookURL    string
	Documented    string
	ReplayCommand string
	Ahead         time.Duration // of the clock
	Stages        stagesView
	Table         tableView
	Feed          []sandbox.Event // newest first
	Story         *storyView      // nil if none is open
}

// Live is the address of the stream that continues after the page's newest
// event.
func (v *pageView) Live() string {
	q := v.List.Values()
	q.Set("run", v.Run)
	q.Set("after", strconv.FormatInt(v.After, 10))
	q.Set("have", v.Table.Print)
	return "/live?" + q.Encode()
}

// Here is the address of the page as it is.
func (v *pageView) Here() string {
	if v.Story != nil {
		return v.Story.Address()
	}
	return v.List.At(v.List.Page)
}

type tableView struct {
	List        list
	Rows        []rowView
	Total       int
	First, Last int // of the rows, counted from 1
	Pages       int
	Print       string // differs if the rows differ
}

type rowView struct {
	sandbox.Row
	Current bool // its story is open
	New     bool // it was not in the table before
}

// table reads a page of the list: the last one where there are fewer, as once
// what was filtered for has passed.
func (c *console) table(l list) (tableView, error) {
	rows, total, err := c.sandbox.Rows(sandbox.Query{Text: l.Text, States: l.States, Offset: (l.Page - 1) * perPage, Limit: perPage})
	if err != nil {
		return tableView{}, err
	}
	pages := max(1, (total+perPage-1)/perPage)
	if l.Page > pages {
		l.Page = pages
		return c.table(l)
	}
	t := tableView{List: l, Total: total, Pages: pages}
	if len(rows) > 0 {
		t.First, t.Last = (l.Page-1)*perPage+1, (l.Page-1)*perPage+len(rows)
	}
	hash := fnv.New64a()
	fmt.Fprint(hash, total)
	for _, r := range rows {
		t.Rows = append(t.Rows, rowView{Row: r})
		fmt.Fprint(hash, " ", r.ID, " ", printOf(r))
	}
	t.Print = strconv.FormatUint(hash.Sum64(), 36)
	return t, nil
}

// printOf is a fingerprint of what is shown of a row.
func printOf(r sandbox.Row) uint64 {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "%q", []any{r.Image, r.Digest, r.Route, r.State, r.Reason, r.Hint, r.PipelineURL, r.UpdatedAt.UnixNano(), r.Deliveries, r.Shown, r.Silent})
	return hash.Sum64()
}

// ahead is how far the clock is ahead, in whole seconds.
func (c *console) ahead() time.Duration { return c.sandbox.Ahead().Round(time.Second) }

// stagesView is the diagram of the system.
type stagesView struct {
	Stages []stageView
	Faults []sandbox.Fault
}

type stageView struct {
	sandbox.StageNow
	Name string
	Icon string
	What string // in a sentence, for newcomers
}

// stageWords name the stages for people.
var stageWords = map[sandbox.Stage]struct{ name, icon, what string }{
	sandbox.Hub:         {"Docker Hub", "box", "Calls Webhook once for a push, or several times for a multi-arch image."},
	sandbox.Webhook:     {"Webhook", "hook", "Checks the token, publishes a message, and answers 202 once Pub/Sub has it."},
	sandbox.Topic:       {"Topic", "queue", "Holds the messages, and delivers a message again after a 503."},
	sandbox.Trigger:     {"Trigger", "bolt", "Looks at the tag, claims the promotion, and asks GitLab for a pipeline."},
	sandbox.Registry:    {"Registry", "stack", "Says what a tag is now."},
	sandbox.GitLab:      {"GitLab", "branch", "Creates the pipeline."},
	sandbox.Pipeline:    {"Pipeline", "play", "Signs the image, moves latest, and reports."},
	sandbox.Notify:      {"Notify", "bell", "Records reports, then makes Slack show them."},
	sandbox.Slack:       {"Slack", "chat", "Shows one message for each promotion."},
	sandbox.DeadLetters: {"Dead letters", "letter", "Pushes that were given up, until they are replayed."},
	sandbox.Reconcile:   {"Reconcile", "loop", "Finds the pushes whose webhook was lost."},
	sandbox.Ledger:      {"Ledger", "book", "Has the record of each promotion."},
}

func nameOf(s sandbox.Stage) string { return cmp.Or(stageWords[s].name, string(s)) }

func (c *console) stages() stagesView {
	var v stagesView
	for _, s := range c.sandbox.Stages() {
		w := stageWords[s.Stage]
		v.Stages = append(v.Stages, stageView{StageNow: s, Name: nameOf(s.Stage), Icon: w.icon, What: w.what})
		v.Faults = append(v.Faults, s.Faults...)
	}
	return v
}

// Mood chooses the look of a stage.
func (s stageView) Mood() string {
	switch {
	case len(s.Faults) > 0:
		return "is-broken"
	case s.InHand > 0:
		return "is-busy"
	case s.Waiting > 0:
		return "is-waiting"
	}
	return ""
}

// print is a fingerprint of what is shown of a stage.
func (s stageView) print() string {
	return fmt.Sprintf("%d %d %d %d %q %s", s.InHand, s.Waiting, s.Done, s.Bad, s.Last, printFaults(s.Faults))
}

// printFaults is a fingerprint of what is shown of faults. For a fault without
// a limit, it leaves out how often it was used.
func printFaults(list []sandbox.Fault) string {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Times == 0 {
			list[i].Used = 0
		}
	}
	return fmt.Sprintf("%+v", list)
}

// maxFeed is how many events the page shows of all that happened.
const maxFeed = 150

// feed returns the events up to a given one, the newest first, and the number
// of the newest event of all.
func (c *console) feed(by int64) (shown []sandbox.Event, newest int64) {
	events, _, newest := c.sandbox.Events(0)
	n, _ := slices.BinarySearchFunc(events, by+1, func(ev sandbox.Event, id int64) int { return cmp.Compare(ev.ID, id) })
	return feedOf(events[:n]), newest
}

// feedOf selects the events for the feed: not the calls, which are in the
// stories.
func feedOf(events []sandbox.Event) []sandbox.Event {
	var shown []sandbox.Event
	for _, ev := range slices.Backward(events) {
		if ev.Call == nil && len(shown) < maxFeed {
			shown = append(shown, ev)
		}
	}
	return shown
}

// stateLooks say how the states look. Each has an icon and a word in addition
// to its colour.
var stateLooks = map[ledger.State]struct{ mood, icon string }{
	ledger.Waiting:    {"wait", "clock"},
	ledger.Starting:   {"busy", "spin"},
	ledger.Triggered:  {"busy", "spin"},
	ledger.Running:    {"busy", "spin"},
	ledger.Promoted:   {"good", "check"},
	ledger.Skipped:    {"idle", "skip"},
	ledger.Superseded: {"idle", "skip"},
	ledger.Failed:     {"bad", "cross"},
	ledger.Dead:       {"bad", "alarm"},
}

// functions are the functions of the templates.
var functions = template.FuncMap{
	"mood":      func(s ledger.State) string { return cmp.Or(stateLooks[s].mood, "idle") },
	"stateIcon": func(s ledger.State) string { return cmp.Or(stateLooks[s].icon, "skip") },
	"stage":     nameOf,
	"clock":     func(t time.Time) string { return t.Local().Format("15:04:05") },
	"millis":    func(t time.Time) string { return t.Local().Format("15:04:05.000") },
	"stamp":     func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") },
	"iso":       func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
	"took":      took,
	"short":     shortDigest,
	"pretty":    pretty,
	"count":     count,
	"web":       webAddress,
	"path":      url.PathEscape,
	"per":       func(p float64) string { return strconv.FormatFloat(math.Round(p*100), 'f', -1, 64) + " %" },
	"emoji":     emojis,
	"icon":      icon,
	"title":     titleOf,
	"json":      func(v any) (string, error) { out, err := json.Marshal(v); return string(out), err },
	"inc":       func(n int) int { return n + 1 },
	"dec":       func(n int) int { return n - 1 },
	"dict": func(pairs ...any) (map[string]any, error) {
		m := map[string]any{}
		for i := 0; i+1 < len(pairs); i += 2 {
			name, ok := pairs[i].(string)
			if !ok {
				return nil, fmt.Errorf("%v is no name", pairs[i])
			}
			m[name] = pairs[i+1]
		}
		return m, nil
	},
}

// icon draws an icon of the sprite. The name is a constant, never a text from
// outside.
func icon(name string) template.HTML {
	return template.HTML(`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><use href="#i-` + template.HTMLEscapeString(name) + `"/></svg>`)
}

// titleOf is the beginning of the page's title, with the open story.
func titleOf(s *storyView) string {
	if s == nil {
		return ""
	}
	return s.Image + " · "
}

// took writes a duration as people say it, in three figures.
func took(d time.Duration) string {
	switch {
	case d < 0:
		return "–" + took(-d)
	case d < time.Millisecond:
		return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 2, 64) + " s"
	case d < 100*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
}

// shortDigest is as much of a digest as people need to recognise it.
func shortDigest(digest string) string {
	algorithm, hex, ok := strings.Cut(digest, ":")
	if !ok || len(hex) <= 12 || algorithm != "sha256" {
		return digest
	}
	return hex[:12]
}

// count groups the digits of large numbers.
func count(n any) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u2009" + text[i:]
	}
	return text
}

// webAddress returns an address that may be a link, "" for any other, such as
// javascript:.
func webAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return ""
	}
	return address
}
