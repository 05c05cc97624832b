package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
)

const statusUsage = `Usage: hubrelay status [FLAGS]

Shows recent promotions, the newest first: what is in progress, what failed, what
never reported, and what to fix. It also says which missed pushes are not looked for.

It uses Google's application default credentials (gcloud auth application-default
login), or FIRESTORE_EMULATOR_HOST if that is set.

Flags:
`

// rowTime is how long Firestore may take for the next promotion.
const rowTime = 15 * time.Second

// silent is the state of a triggered or running promotion whose pipeline Slack
// shows as silent.
const silent = "silent"

// promotion is what -json shows.
type promotion struct {
	PromotionID string    `json:"promotion_id"`
	Note        bool      `json:"note,omitempty"` // it is not a promotion, but a release, for instance
	Event       string    `json:"event"`
	Repository  string    `json:"repository"`
	Tag         string    `json:"tag"`
	Digest      string    `json:"digest,omitempty"`
	Route       string    `json:"route"`
	State       string    `json:"state"`
	Reason      string    `json:"reason,omitempty"`
	Hint        string    `json:"hint,omitempty"`
	Words       string    `json:"words,omitempty"` // GitLab's own
	Requests    int       `json:"requests"`        // to create a pipeline
	PipelineURL string    `json:"pipeline_url,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"` // since when it has been in that state
	Shown       bool      `json:"shown"`      // a message in Slack is as new as this
}

func status(ctx context.Context, args []string, out io.Writer) error {
	states := []string{silent}
	for _, s := range ledger.States {
		states = append(states, string(s))
	}
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	since := age(7 * 24 * time.Hour)
	var (
		name    = flags.String("ledger", os.Getenv("LEDGER"), "`firestore:projects/P/databases/D`: Terraform's output ledger; the default is LEDGER")
		pattern = flags.String("match", "*", "only these images, `REPOSITORY[:TAG]`; both may be globs")
		state   = flags.String("state", "", "only these states, `STATE[,STATE]`: "+strings.Join(states, ", "))
		notes   = flags.Bool("notes", false, "also show releases, deploys and other messages that belong to no promotion")
		asJSON  = flags.Bool("json", false, "print a JSON array")
	)
	flags.Var(&since, "since", "promotions of the last `DURATION`, such as 90m or 48h")
	if err := parse(flags, statusUsage, args, out); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("status takes flags and no arguments, and %.100q is one", flags.Arg(0))
	case *name == "":
		return errors.New("-ledger is missing: it is Terraform's output ledger")
	case strings.HasPrefix(*name, "memory:"):
		return errors.New("-ledger: a ledger in the memory of a function cannot be read from here")
	case !strings.HasPrefix(*name, "firestore:"):
		return fmt.Errorf("-ledger: %.200q is not firestore:projects/PROJECT/databases/DATABASE, as Terraform's output ledger is", *name)
	}
	match, err := dockerhub.ParsePattern(*pattern)
	if err != nil {
		return fmt.Errorf("-match: %w", err)
	}
	var wanted []string
	if *state != "" {
		wanted = strings.Split(*state, ",")
	}
	for _, s := range wanted {
		if !slices.Contains(states, s) {
			return fmt.Errorf("-state: %q is not one of %s", s, strings.Join(states, ", "))
		}
	}
	promotions, err := ledger.Open(*name)
	if err != nil {
		return fmt.Errorf("-ledger: %w", err)
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	patience := time.AfterFunc(rowTime, cancel)
	now, found := time.Now(), []promotion{}
	for p, err := range promotions.All(reading) {
		if err != nil && ctx.Err() == nil && reading.Err() != nil {
			return fmt.Errorf("firestore%s has not answered for %s", emulator(), rowTime)
		}
		if err != nil {
			return err
		}
		patience.Reset(rowTime)
		if now.Sub(p.CreatedAt) > time.Duration(since) {
			break
		}
		shown := show(p)
		if (*notes || !p.Note) && match.Matches(p.Repository, p.Tag) && (wanted == nil || slices.Contains(wanted, shown.State)) {
			found = append(found, shown)
		}
	}
	if *asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	rules, err := promotions.Rules(ctx)
	if err != nil {
		return err
	}
	return errors.Join(table(out, found, now), uncovered(out, rules))
}

// uncovered says which missed pushes are not looked for. It prints nothing if
// all are.
func uncovered(out io.Writer, rules map[string]ledger.Rules) error {
	if rules == nil {
		_, err := fmt.Fprintln(out, "\nMissed pushes are not looked for: Docker Hub was never asked. Is RECONCILE off, or does nothing call /reconcile?")
		return err
	}
	namespaces, globs := route.Namespaces(slices.Sorted(maps.Keys(rules)))
	if globs == nil {
		return nil
	}
	where := cmp.Or(strings.Join(namespaces, ", "), "none")
	_, err := fmt.Fprintf(out, "\nMissed pushes of %s are looked for only in the namespaces that other routes name: %s.\n", strings.Join(globs, ", "), where)
	return err
}

// emulator names the emulator of Firestore, if one is used.
func emulator() string {
	host := os.Getenv("FIRESTORE_EMULATOR_HOST")
	if host == "" {
		return ""
	}
	return fmt.Sprintf(" at FIRESTORE_EMULATOR_HOST, %.100s,", host)
}

func show(p ledger.Promotion) promotion {
	state, since := string(p.State), p.UpdatedAt
	switch {
	case p.Silent():
		state = silent
	case p.State == ledger.Waiting && !p.WaitsSince.IsZero(): // since before its last attempt
		since = p.WaitsSince
	}
	return promotion{
		PromotionID: p.ID, Note: p.Note, Event: string(p.Event), Repository: p.Repository, Tag: p.Tag, Digest: p.Digest, Route: p.Route,
		State: state, Reason: p.Reason, Hint: p.Hint, Words: p.Words, Requests: p.Requests, PipelineURL: p.PipelineURL,
		CreatedAt: p.CreatedAt.UTC(), UpdatedAt: since.UTC(), Shown: p.TS != "" && !p.Behind(),
	}
}

func table(out io.Writer, found []promotion, now time.Time) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(out, "there are no such promotions")
		return err
	}
	rows := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "IMAGE\tSTATE\tFOR\tREQUESTS\tREASON\tPIPELINE")
	var hints []string
	for _, p := range found {
		fmt.Fprintf(rows, "%s\t%s\t%s\t%d\t%s\t%s\n", subject(p), p.State, howLong(now.Sub(p.UpdatedAt)), p.Requests, cmp.Or(p.Reason, "-"), cmp.Or(p.PipelineURL, "-"))
		// What to fix is long, and the same for many promotions: it is printed
		// once, below.
		if hint := p.Reason + ": " + p.Hint; p.Hint != "" && !slices.Contains(hints, hint) {
			hints = append(hints, hint)
		}
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	for _, hint := range hints {
		if _, err := fmt.Fprintf(out, "\n%s\n", hint); err != nil {
			return err
		}
	}
	return nil
}

// subject is what a promotion, or a note, is about.
func subject(p promotion) string {
	image := p.Repository
	if p.Tag != "" {
		image += ":" + p.Tag
	}
	if p.Note {
		return strings.TrimSpace(p.Event + " " + image)
	}
	return image
}

// howLong says how long, in its two largest units.
func howLong(d time.Duration) string {
	days, hours, minutes := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
}
