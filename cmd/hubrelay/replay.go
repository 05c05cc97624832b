package main

import (
	"cmp"
	"context"
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

	"github.com/getto-systems/hubrelay/internal/deadletter"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/pubsub"
)

const replayUsage = `Usage: hubrelay replay -subscription NAME [FLAGS]

Shows the dead letters that wait, and with -apply queues them again: Trigger
then takes them like any push, by the routes of now. It acknowledges what it has
queued and nothing else, so it can be interrupted, and run twice.

It uses Google's application default credentials: gcloud auth application-default login.

`

func replay(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() {
		_, _ = io.WriteString(out, replayUsage)
		flags.PrintDefaults()
	}
	var (
		subscription = flags.String("subscription", "", "where dead letters wait, `projects/P/subscriptions/S`: Terraform's output dead_letter_subscription")
		topicName    = flags.String("topic", "", "where pushes are queued, `projects/P/topics/T`; NAME-pushes for a subscription NAME-dead-letters")
		pattern      = flags.String("match", "*", "which images, `REPOSITORY[:TAG]`; both may be globs")
		limit        = flags.Int("limit", 0, "how many at most; 0 is all")
		apply        = flags.Bool("apply", false, "queue them again; without it nothing is changed")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *subscription == "" || *limit < 0 {
		return errors.New("replay takes -subscription projects/P/subscriptions/S, and no arguments; hubrelay replay -h tells more")
	}
	match, err := dockerhub.ParsePattern(*pattern)
	if err != nil {
		return fmt.Errorf("-match: %w", err)
	}
	topic, err := pubsub.ParseTopic(cmp.Or(*topicName, pushesTopic(*subscription)))
	if err != nil {
		return fmt.Errorf("-topic: %w", err)
	}
	letters, err := deadletter.Open(ctx, *subscription, topic, os.Getenv("PUBSUB_EMULATOR_HOST"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, letters.Close()) }()

	table := letterTable{out: out, hints: map[string]string{}}
	waiting, chosen, replayed := 0, 0, 0
	for some, err := range letters.Take(ctx) {
		if err != nil {
			return errors.Join(err, table.end(waiting, chosen, replayed, *apply))
		}
		waiting += len(some)
		var these []pubsub.Message
		for _, letter := range some {
			push, err := dockerhub.Decode(letter.Data)
			if *limit > 0 && chosen == *limit {
				break
			}
			if err != nil {
				table.add(letter, "(no push: it stays)")
			} else if match.Matches(push.Repository, push.Tag) {
				table.add(letter, push.Repository+":"+push.Tag)
				these = append(these, letter)
				chosen++
			}
		}
		if *apply {
			n, err := letters.Replay(ctx, these)
			replayed += n
			if err != nil {
				return errors.Join(err, table.end(waiting, chosen, replayed, *apply))
			}
			table.flush()
			fmt.Fprintf(out, "… %d queued again so far\n", replayed)
		}
		if *limit > 0 && chosen == *limit {
			break
		}
		table.flush()
	}
	return table.end(waiting, chosen, replayed, *apply)
}

// pushesTopic is the topic that terraform/ makes beside a subscription of dead
// letters.
func pushesTopic(subscription string) string {
	return strings.TrimSuffix(strings.Replace(subscription, "/subscriptions/", "/topics/", 1), "dead-letters") + "pushes"
}

// letterTable shows dead letters as they come.
type letterTable struct {
	out   io.Writer
	rows  *tabwriter.Writer
	hints map[string]string // by reason
}

func (t *letterTable) add(letter pubsub.Message, image string) {
	if t.rows == nil {
		t.rows = tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t.rows, "IMAGE\tDEAD SINCE\tWHY")
	}
	reason, hint, attempts := letter.Death()
	switch {
	case reason != "":
		if hint != "" {
			t.hints[reason] = hint
		}
	case attempts > 0:
		reason = fmt.Sprintf("gave up after %d attempts", attempts)
	default:
		reason = "gave up"
	}
	fmt.Fprintf(t.rows, "%s\t%s\t%s\n", image, letter.PublishedAt.UTC().Format(time.DateTime), reason)
}

func (t *letterTable) flush() {
	if t.rows != nil {
		_ = t.rows.Flush()
	}
}

func (t *letterTable) end(waiting, chosen, replayed int, apply bool) error {
	t.flush()
	for _, reason := range slices.Sorted(maps.Keys(t.hints)) {
		fmt.Fprintf(t.out, "\n%s: %s\n", reason, t.hints[reason])
	}
	verdict := "nothing was changed; -apply queues them again"
	if apply {
		verdict = fmt.Sprintf("%d queued again", replayed)
	}
	_, err := fmt.Fprintf(t.out, "\n%d dead letters seen, %d chosen: %s\n", waiting, chosen, verdict)
	return err
}
