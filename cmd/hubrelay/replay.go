package main

import (
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

Lists the dead letters. With -apply it queues them again, and Trigger processes them
like any other push, by the current routes. It acknowledges only what it has queued,
so it is safe to interrupt it and to run it twice. While it runs, nobody else
receives the letters.

It uses Google's application default credentials (gcloud auth application-default
login), or PUBSUB_EMULATOR_HOST if that is set.

Flags:
`

func replay(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	var (
		subscription = flags.String("subscription", "", "subscription of the dead letters, `projects/P/subscriptions/S`: Terraform's output dead_letter_subscription")
		topicName    = flags.String("topic", "", "topic of the pushes, `projects/P/topics/T`; the default is NAME-pushes if the subscription is NAME-dead-letters")
		pattern      = flags.String("match", "*", "only these images, `REPOSITORY[:TAG]`; both may be globs")
		reason       = flags.String("reason", "", "only those with this `REASON`, as the table shows it")
		since        age
		limit        = flags.Int("limit", 0, "at most this `NUMBER`; 0 is all")
		apply        = flags.Bool("apply", false, "queue them again; without this flag nothing is changed")
	)
	flags.Var(&since, "since", "only those that died less than this `DURATION` ago, such as 90m or 48h; 0s is all")
	if err := parse(flags, replayUsage, args, out); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("replay takes flags and no arguments, and %.100q is one", flags.Arg(0))
	case *subscription == "":
		return errors.New("-subscription is missing: it is Terraform's output dead_letter_subscription")
	case *limit < 0:
		return fmt.Errorf("-limit is %d; it takes a number of letters, and 0 for all of them", *limit)
	}
	if err := deadletter.CheckName(*subscription); err != nil {
		return fmt.Errorf("-subscription: %w", err)
	}
	if *topicName == "" {
		if *topicName = pushesTopic(*subscription); *topicName == "" {
			return errors.New("-topic is missing: it has a default only if the subscription is called NAME-dead-letters")
		}
	}
	topic, err := pubsub.ParseTopic(*topicName)
	if err != nil {
		return fmt.Errorf("-topic: %w", err)
	}
	match, err := dockerhub.ParsePattern(*pattern)
	if err != nil {
		return fmt.Errorf("-match: %w", err)
	}
	emulator := os.Getenv("PUBSUB_EMULATOR_HOST")
	letters, err := deadletter.Open(ctx, *subscription, topic, emulator)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, letters.Close()) }()
	if emulator != "" {
		fmt.Fprintf(out, "PUBSUB_EMULATOR_HOST is set: these dead letters are from %s\n\n", emulator)
	}

	died := time.Now().Add(-time.Duration(since))
	table := letterTable{out: out, hints: map[string]string{}, seen: map[string]int{}}
	waiting, chosen, replayed := 0, 0, 0
	end := func(err error) error {
		if ctx.Err() != nil {
			err = errors.New("interrupted; what was not queued again is still there")
		}
		return errors.Join(err, table.end(waiting, chosen, replayed, *apply))
	}
	for some, err := range letters.Take(ctx) {
		if err != nil {
			return end(err)
		}
		var these []pubsub.Message
		for _, letter := range some {
			if *limit > 0 && chosen == *limit {
				break
			}
			waiting++
			if r := table.see(letter); *reason != "" && r != *reason || since > 0 && letter.PublishedAt.Before(died) {
				continue
			}
			push, err := dockerhub.Decode(letter.Data)
			if err != nil {
				table.add(letter, "(not a push: it stays)")
			} else if match.Matches(push.Repository, push.Tag) {
				table.add(letter, push.Repository+":"+push.Tag)
				these = append(these, letter)
				chosen++
			}
		}
		table.flush()
		if *apply {
			n, err := letters.Replay(ctx, these)
			replayed += n
			if err != nil {
				return end(err)
			}
			fmt.Fprintf(out, "… %d queued again so far\n", replayed)
		}
		if *limit > 0 && chosen == *limit {
			break
		}
	}
	return end(nil)
}

// pushesTopic is the topic that terraform/ creates with a subscription for dead
// letters. It is "" if the subscription does not have the name that terraform/
// gives.
func pushesTopic(subscription string) string {
	name, ok := strings.CutSuffix(subscription, "dead-letters")
	if !ok {
		return ""
	}
	return strings.Replace(name, "/subscriptions/", "/topics/", 1) + "pushes"
}

// letterTable prints dead letters as they arrive.
type letterTable struct {
	out   io.Writer
	rows  *tabwriter.Writer
	hints map[string]string // of those that are shown, by reason
	seen  map[string]int    // by reason
}

// mostReasons bounds the reasons that are counted; hubrelay has about twenty.
const mostReasons = 100

// why returns the reason of a letter in one word, its hint and its attempts.
func why(letter pubsub.Message) (reason, hint string, attempts int) {
	death := letter.Death()
	reason, hint, attempts = death.Reason, death.Hint, death.Attempts
	if reason == "" {
		reason = gaveUp
	}
	return reason, hint, attempts
}

// gaveUp is the reason for letters that Pub/Sub gave up, which have none.
const gaveUp = "gave_up"

// see counts a letter, shown or not, and returns its reason.
func (t *letterTable) see(letter pubsub.Message) (reason string) {
	reason, _, _ = why(letter)
	if _, known := t.seen[reason]; known || len(t.seen) < mostReasons {
		t.seen[reason]++
	}
	return reason
}

func (t *letterTable) add(letter pubsub.Message, image string) {
	if t.rows == nil {
		t.rows = tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t.rows, "IMAGE\tDEAD SINCE\tWHY")
	}
	reason, hint, attempts := why(letter)
	if hint != "" && len(t.hints) < mostReasons {
		t.hints[reason] = hint
	}
	if attempts > 0 {
		reason += fmt.Sprintf(" after %d attempts", attempts)
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
	if chosen == 0 && waiting > 0 {
		var reasons []string
		for _, reason := range slices.Sorted(maps.Keys(t.seen)) {
			reasons = append(reasons, fmt.Sprintf("%s (%d)", reason, t.seen[reason]))
		}
		fmt.Fprintf(t.out, "\nNone was selected. Their reasons: %s\n", strings.Join(reasons, ", "))
	}
	verdict := "nothing was changed; -apply queues them again"
	if apply {
		verdict = fmt.Sprintf("%d queued again", replayed)
	}
	_, err := fmt.Fprintf(t.out, "\n%s found, %d selected: %s\n", count(waiting, "dead letter", "dead letters"), chosen, verdict)
	return err
}
