package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/ledger"
)

const statusUsage = `Usage: hubrelay status [FLAGS]

Shows the promotions of late, the newest first: what is under way, what failed,
and what has never reported. It uses Google's application default credentials.

`

// states are what -state takes.
var states = []string{
	string(ledger.Claimed), string(ledger.Triggered), string(ledger.Running), string(ledger.Silent),
	string(ledger.Promoted), string(ledger.Skipped), string(ledger.Failed),
}

// promotion is what -json shows.
type promotion struct {
	ID          string    `json:"id"`
	Repository  string    `json:"repository"`
	Tag         string    `json:"tag"`
	Digest      string    `json:"digest,omitempty"`
	Route       string    `json:"route"`
	State       string    `json:"state"`
	Reason      string    `json:"reason,omitempty"`
	Attempts    int       `json:"attempts"`
	PipelineURL string    `json:"pipeline_url,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func status(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("status", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, statusUsage)
		flags.PrintDefaults()
	}
	var (
		name    = flags.String("ledger", os.Getenv("LEDGER"), "`firestore:projects/P/databases/D`: Terraform's output ledger; or LEDGER in the environment")
		pattern = flags.String("match", "*", "which images, `REPOSITORY[:TAG]`; both may be globs")
		state   = flags.String("state", "", "which states, `STATE[,STATE]`: "+strings.Join(states, ", "))
		since   = flags.Duration("since", 7*24*time.Hour, "how old at most")
		asJSON  = flags.Bool("json", false, "as a JSON array")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || !strings.HasPrefix(*name, "firestore:") {
		return errors.New("status takes -ledger firestore:projects/P/databases/D, and no arguments; hubrelay status -h tells more")
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
			return fmt.Errorf("-state: %q is none of %s", s, strings.Join(states, ", "))
		}
	}
	promotions, err := ledger.Open(*name)
	if err != nil {
		return fmt.Errorf("-ledger: %w", err)
	}
	found := []promotion{}
	for p, err := range promotions.All(ctx) {
		if err != nil {
			return err
		}
		if time.Since(p.CreatedAt) > *since {
			break
		}
		shown := show(p)
		if match.Matches(p.Repository, p.Tag) && (wanted == nil || slices.Contains(wanted, shown.State)) {
			found = append(found, shown)
		}
	}
	if *asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(found)
	}
	return table(out, found)
}

func show(p ledger.Promotion) promotion {
	state := p.State
	if p.Message.Tells == ledger.Silent {
		state = ledger.Silent
	}
	return promotion{
		p.ID, p.Repository, p.Tag, p.Digest, p.Route, string(state), p.Reason, p.Attempts, p.PipelineURL,
		p.CreatedAt.UTC(), p.UpdatedAt.UTC(),
	}
}

func table(out io.Writer, found []promotion) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(out, "there are no such promotions")
		return err
	}
	rows := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "IMAGE\tSTATE\tFOR\tATTEMPTS\tREASON\tPIPELINE")
	for _, p := range found {
		fmt.Fprintf(rows, "%s:%s\t%s\t%s\t%d\t%s\t%s\n", p.Repository, p.Tag, p.State,
			time.Since(p.UpdatedAt).Round(time.Second), p.Attempts, p.Reason, p.PipelineURL)
	}
	return rows.Flush()
}
