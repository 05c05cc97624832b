// Package check looks whether a hubrelay is set up right, before and after it is
// deployed: it asks GitLab, Docker Hub, Slack and the functions what can be asked
// without side effects, and says what to fix.
//
// It reads settings by the rules by which the functions start, so that it never
// disagrees with them. A tool that could not look never says that all is well:
// what was asked and got no answer that tells counts as unknown, and what was
// not asked is listed as such.
package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds all of a check, and callTimeout one question of it.
const (
	Timeout     = 30 * time.Second
	callTimeout = 10 * time.Second
)

// atOnce is how many questions of a section are under way at the same time, so that a table of
// many routes does not meet GitLab's limits.
const atOnce = 12

// Status is what was found about one thing.
type Status string

// The statuses. A Skip was not checked: because something it needs is not in
// order, because nobody gave what it takes to ask, or, where Unknown is set,
// because there was no answer that tells.
const (
	Pass Status = "pass"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Finding is what was found about one thing. No secret is in it.
type Finding struct {
	// ID is SECTION.NAME. It stays the same from version to version.
	ID      string `json:"id"`
	Subject string `json:"subject,omitempty"` // the setting, route, project, repository or channel
	Status  Status `json:"status"`
	Unknown bool   `json:"unknown,omitempty"` // it was asked, and there was no answer that tells
	Found   string `json:"found"`
	Wanted  string `json:"wanted"`
	Mend    string `json:"mend,omitempty"`
	Page    string `json:"page"`
}

// Section is the part of the ID before the dot.
func (f Finding) Section() string {
	section, _, _ := strings.Cut(f.ID, ".")
	return section
}

// Options say what is checked.
type Options struct {
	// Getenv returns settings, by the names that the functions read, and the
	// addresses of the functions: WEBHOOK_URL, NOTIFY_URL and TRIGGER_URL.
	Getenv func(string) string
	// Names are the settings that stand in a file; nil where there is none.
	Names []string
	// Pre leaves out what the deploy creates.
	Pre bool
	// Deployed says that the settings are those of what is deployed, where a secret
	// may be that is not given here.
	Deployed bool
	// Only names what is looked at: sections and IDs, with what they need. None is
	// everything.
	Only []string
	// NoTrigger leaves out the one POST request to GitLab, for a pipeline on a ref
	// that cannot exist.
	NoTrigger bool
	// Say posts a line to each Slack channel that cannot be asked about.
	Say bool
	// Images are repositories that are checked beside those that the routes name,
	// with a tag or "".
	Images []Image
	// Version is the command's own, "" where it is not compared.
	Version string
}

// Image is a repository, and a tag of it or "".
type Image struct{ Repository, Tag string }

// ParseImage reads REPOSITORY[:TAG].
func ParseImage(text string) (Image, error) {
	if err := dockerhub.CheckShort(text); err != nil {
		return Image{}, err
	}
	repository, tag, tagged := strings.Cut(text, ":")
	repository = dockerhub.Canonical(repository)
	if err := dockerhub.CheckRepository(repository); err != nil {
		return Image{}, err
	}
	if tagged {
		if err := dockerhub.CheckTag(tag); err != nil {
			return Image{}, err
		}
	}
	return Image{repository, tag}, nil
}

// Report is all that was found, in an order that does not change.
type Report struct {
	Findings []Finding
}

// Count says how many findings have the status. What is Unknown is not among the
// skipped.
func (r Report) Count(s Status) int {
	n := 0
	for _, f := range r.Findings {
		if f.Status == s && !f.Unknown {
			n++
		}
	}
	return n
}

// Unknown says how many things were asked about in vain.
func (r Report) Unknown() int {
	n := 0
	for _, f := range r.Findings {
		if f.Unknown {
			n++
		}
	}
	return n
}

// ExitCode is 1 where something failed, else 2 where something could not be
// looked at or nothing was, else 0.
func (r Report) ExitCode() int {
	switch {
	case r.Count(Fail) > 0:
		return 1
	case r.Unknown() > 0, r.Count(Pass)+r.Count(Warn) == 0:
		return 2
	}
	return 0
}

// result is what a probe found.
type result struct {
	status  Status
	unknown bool
	found   string
	wanted  string // "" is what the catalogue says
	mend    string
	// goOn lets those that need the probe go on although it failed.
	goOn bool
}

func pass(format string, args ...any) result {
	return result{status: Pass, found: fmt.Sprintf(format, args...)}
}

func warn(mend, format string, args ...any) result {
	return result{status: Warn, found: fmt.Sprintf(format, args...), mend: mend}
}

func fail(mend, format string, args ...any) result {
	return result{status: Fail, found: fmt.Sprintf(format, args...), mend: mend}
}

// notAsked is of what nobody gave the means to ask, or that needs no question.
func notAsked(format string, args ...any) result {
	return result{status: Skip, found: fmt.Sprintf(format, args...)}
}

// unknown is of a question without an answer that tells.
func unknown(mend, format string, args ...any) result {
	return result{status: Skip, unknown: true, found: fmt.Sprintf(format, args...), mend: mend}
}

// again is the mend where nothing is known to be wrong.
const again = "Run it again."

// why says why others cannot go on.
func (r result) why() string {
	switch {
	case r.status == Fail:
		return "failed"
	case r.unknown:
		return "could not be checked"
	}
	return "was not checked"
}

func (r result) wanting(wanted string) result {
	r.wanted = wanted
	return r
}

// probe finds out about one thing.
type probe struct {
	id, subject string
	needs       []*probe // that must be in order
	after       []*probe // that must have been looked at
	run         func(context.Context) result

	done   chan struct{}
	result result // once done is closed
}

func (p *probe) ok() bool {
	return p.result.status == Pass || p.result.status == Warn || p.result.goOn
}

// checker collects probes, and runs them.
type checker struct {
	Options
	probes []*probe
	limits map[string]chan struct{} // by section
}

// newChecker returns a checker by which each section has as many questions under
// way at a time: who hangs in one keeps no other from its turn.
func newChecker(o Options, atOnce int) *checker {
	c := &checker{Options: o, limits: map[string]chan struct{}{}}
	for _, section := range Sections {
		c.limits[section] = make(chan struct{}, atOnce)
	}
	return c
}

func (c *checker) add(id, subject string, needs []*probe, run func(context.Context) result) *probe {
	if _, ok := kinds[id]; !ok {
		panic("no such finding: " + id)
	}
	p := &probe{id: id, subject: subject, needs: needs, run: run, done: make(chan struct{})}
	c.probes = append(c.probes, p)
	return p
}

// known adds a finding that takes no question.
func (c *checker) known(id, subject string, r result) *probe {
	return c.add(id, subject, nil, func(context.Context) result { return r })
}

// lookAt runs a probe when those that it needs are done.
func (c *checker) lookAt(ctx context.Context, p *probe) {
	defer close(p.done)
	for _, other := range append(slices.Clone(p.needs), p.after...) {
		<-other.done
	}
	for _, needed := range p.needs {
		if !needed.ok() {
			p.result = notAsked("needs %s, which %s", strings.TrimSpace(needed.id+" "+needed.subject), needed.result.why())
			return
		}
	}
	section, _, _ := strings.Cut(p.id, ".")
	limit := c.limits[section]
	select {
	case limit <- struct{}{}:
		defer func() { <-limit }()
	case <-ctx.Done():
		p.result = outOfTime
		return
	}
	p.result = p.run(ctx)
}

var outOfTime = result{status: Skip, unknown: true, found: "there was no time left to check it", mend: "Run it again, or check less at once, with -only."}

// selected returns the probes that were asked for, and those they need.
func (c *checker) selected() []*probe {
	if len(c.Only) == 0 {
		return c.probes
	}
	wanted := map[*probe]bool{}
	var want func(*probe)
	want = func(p *probe) {
		if wanted[p] {
			return
		}
		wanted[p] = true
		for _, other := range append(slices.Clone(p.needs), p.after...) {
			want(other)
		}
	}
	for _, p := range c.probes {
		if c.wants(p.id) {
			want(p)
		}
	}
	return slices.DeleteFunc(slices.Clone(c.probes), func(p *probe) bool { return !wanted[p] })
}

func (c *checker) wants(id string) bool {
	section, _, _ := strings.Cut(id, ".")
	return len(c.Only) == 0 || slices.Contains(c.Only, section) || slices.Contains(c.Only, id)
}

// wantsSection tells whether anything of a section is asked for.
func (c *checker) wantsSection(section string) bool {
	return len(c.Only) == 0 || slices.ContainsFunc(c.Only, func(only string) bool {
		of, _, _ := strings.Cut(only, ".")
		return of == section
	})
}

// Run looks at everything at once, and for no longer than Timeout. Its error is
// ctx's, or a mistake in the options, which it calls by the names of the flags.
func Run(ctx context.Context, o Options) (Report, error) {
	if err := checkOnly(o); err != nil {
		return Report{}, fmt.Errorf("-only: %w", err)
	}
	c := newChecker(o, atOnce)
	looking, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	if err := c.plan(looking); err != nil {
		return Report{}, err
	}

	report := c.look(looking)
	return report, ctx.Err()
}

// look runs the probes that were asked for, until ctx ends.
func (c *checker) look(ctx context.Context) Report {
	probes := c.selected()
	var running sync.WaitGroup
	for _, p := range probes {
		running.Go(func() { c.lookAt(ctx, p) })
	}
	all := make(chan struct{})
	go func() {
		running.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
		select { // they end with it, unless one does not listen
		case <-all:
		case <-time.After(time.Second):
		}
	}
	redact := newRedactor(c.Getenv)
	tell := func(text string) string { return shorten(redact(httpclient.OneLine(text))) }
	var report Report
	for _, p := range probes {
		r := outOfTime
		select {
		case <-p.done:
			r = p.result
		default:
		}
		k := kinds[p.id]
		report.Findings = append(report.Findings, Finding{
			ID: p.id, Subject: tell(p.subject), Status: r.status, Unknown: r.unknown,
			Found: tell(r.found), Wanted: tell(cmp.Or(r.wanted, k.wanted)), Mend: tell(r.mend), Page: Docs + k.page,
		})
	}
	slices.SortStableFunc(report.Findings, func(a, b Finding) int { return cmp.Compare(kinds[a.ID].order, kinds[b.ID].order) })
	return report
}

func checkOnly(o Options) error {
	for _, only := range o.Only {
		_, isID := kinds[only]
		switch section, _, _ := strings.Cut(only, "."); {
		case !isID && !slices.Contains(Sections, only):
			return fmt.Errorf("%.50q is neither a section (%s) nor the ID of a finding", only, strings.Join(Sections, ", "))
		case o.Pre && section == "deployed":
			return fmt.Errorf("%s is about what is deployed, and before a deploy there is nothing", only)
		}
	}
	return nil
}

// maxText bounds what is told of one thing, in characters. It is cut once no secret
// is in it: a part of one would not be found.
const maxText = 4000

func shorten(text string) string {
	if utf8.RuneCountInString(text) <= maxText {
		return text
	}
	return string([]rune(text)[:maxText-1]) + "…"
}

// plan makes the probes.
func (c *checker) plan(ctx context.Context) error {
	s := c.settings()
	for _, i := range c.Images {
		if _, ok := s.trigger.Routes.Find(i.Repository); !ok && len(s.need("ROUTES")) == 0 {
			return fmt.Errorf("-image: no route matches %s", i.Repository)
		}
	}
	c.routes(s)
	targets := c.targets(ctx, s)
	templates := c.gitlab(s, targets)
	c.dockerhub(s, targets)
	c.slack(s)
	if !c.Pre {
		c.deployed(s, targets, templates)
	}
	return nil
}
