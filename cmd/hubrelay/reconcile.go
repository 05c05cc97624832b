package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/pubsub"
	"github.com/getto-systems/hubrelay/internal/reconcile"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

const reconcileUsage = `Usage: hubrelay reconcile -since DURATION [FLAGS]

Asks Docker Hub what was pushed, and lists the pushes that started no promotion. Use
it after an outage of more than a day, or for repositories that had images before
hubrelay. With -apply it queues them, the oldest first, and Trigger processes them
like any other push, by the current routes. It does not restart what has failed or
died, unless it was pushed again since then.

It reads ROUTES, LEDGER, TOPIC, REGISTRY, REGISTRY_AUTH and HUB_URL from the
environment, as Trigger does. If it reaches a limit of Docker Hub, it waits. It fails
if something could not be asked.

It uses Google's application default credentials (gcloud auth application-default
login), or PUBSUB_EMULATOR_HOST and FIRESTORE_EMULATOR_HOST if these are set.

Flags:
`

// queueEvery is the time between two pushes that are queued. Promotions should
// begin in the order of the pushes, because the one that begins last gets the
// moving tag.
const queueEvery = time.Second

func reconcileCommand(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("reconcile", flag.ContinueOnError)
	var (
		since  age
		routes = flags.String("routes", "", "read the routes from this JSON `file` instead of ROUTES")
		name   = flags.String("ledger", os.Getenv("LEDGER"), "`firestore:projects/P/databases/D`: Terraform's output ledger; the default is LEDGER")
		topic  = flags.String("topic", os.Getenv("TOPIC"), "topic of the pushes, `projects/P/topics/T`; the default is TOPIC")
		apply  = flags.Bool("apply", false, "queue what was missed; without this flag nothing is changed")
	)
	flags.Var(&since, "since", "pushes of the last `DURATION`, such as 72h")
	if err := parse(flags, reconcileUsage, args, out); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("reconcile takes flags and no arguments, and %.100q is one", flags.Arg(0))
	case since == 0:
		return errors.New("-since is missing: it says how far to look back, such as 72h")
	case *name == "":
		return errors.New("-ledger is missing: it is Terraform's output ledger")
	case !strings.HasPrefix(*name, "firestore:"):
		return fmt.Errorf("-ledger: %.200q is not firestore:projects/PROJECT/databases/DATABASE, as Terraform's output ledger is", *name)
	case *topic == "" && *apply:
		return errors.New("-topic is missing: it is the topic to which missed pushes are queued")
	}
	finder := reconcile.Finder{}
	if finder.Routes, err = readRoutes(*routes); err != nil {
		return err
	}
	promotions, err := ledger.Open(*name)
	if err != nil {
		return fmt.Errorf("-ledger: %w", err)
	}
	finder.Promotions = promotions
	settings := env.New(os.Getenv)
	account := settings.Secret("REGISTRY_AUTH")
	if _, err := env.ParseDockerAccount(account, "docker.io"); err != nil {
		settings.Mistake("REGISTRY_AUTH", err)
	}
	imagesURL, hubURL := settings.URL("REGISTRY", "https://registry-1.docker.io"), settings.URL("HUB_URL", "https://hub.docker.com")
	if err := settings.Err(); err != nil {
		return err
	}
	images, err := registry.New(imagesURL, account)
	if err != nil {
		return fmt.Errorf("REGISTRY: %w", err)
	}
	if os.Getenv("HUB_URL") == "" && !images.OfDockerHub() {
		return errors.New("REGISTRY is not Docker Hub's: Docker Hub does not know what was pushed there, and may have images of others under the same names. " +
			"If its API is elsewhere, set HUB_URL")
	}
	client, err := hub.New(hubURL, account)
	if err != nil {
		return fmt.Errorf("HUB_URL: %w", err)
	}
	finder.Images, finder.Hub = images, client
	if *apply {
		to, err := pubsub.ParseTopic(*topic)
		if err != nil {
			return fmt.Errorf("-topic: %w", err)
		}
		publisher, err := pubsub.NewPublisher(ctx, to, os.Getenv("PUBSUB_EMULATOR_HOST"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, publisher.Close()) }()
		finder.Topic = publisher
	}
	if keys := finder.Routes.Uncovered(); len(keys) > 0 {
		fmt.Fprintf(out, "Docker Hub is asked about the namespaces %s. Pushes that %s matches in other namespaces are not found.\n\n",
			strings.Join(finder.Routes.Namespaces(), ", "), strings.Join(keys, ", "))
	}
	return catchUp(ctx, reconcile.New(finder, slog.New(slog.DiscardHandler)), time.Now().Add(-time.Duration(since)), *apply, out)
}

// readRoutes reads the table from a file, or from ROUTES if there is none.
func readRoutes(file string) (route.Table, error) {
	text, what := os.Getenv("ROUTES"), "ROUTES"
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return route.Table{}, fmt.Errorf("-routes: %w", err)
		}
		text, what = string(raw), "-routes"
	}
	if text == "" {
		return route.Table{}, errors.New("-routes is missing: it names a file with the value of the setting ROUTES")
	}
	table, err := route.Parse(text)
	if err != nil {
		return table, fmt.Errorf("%s: %w", what, err)
	}
	return table, nil
}

// catchUp lists missed pushes, and queues them if apply is set.
func catchUp(ctx context.Context, finder *reconcile.Finder, since time.Time, apply bool, out io.Writer) error {
	missed, unanswered := finder.All(ctx, since, func(d time.Duration) {
		fmt.Fprintf(out, "… Docker Hub limits requests; going on in %s\n", d.Round(time.Second))
	})
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing was changed")
	}
	if len(missed) > 0 {
		rows := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(rows, "IMAGE\tPUSHED\tDIGEST\tROUTE")
		for _, m := range missed {
			fmt.Fprintf(rows, "%s:%s\t%s\t%.19s\t%s\n", m.Push.Repository, m.Push.Tag, m.Push.PushedAt.UTC().Format(time.DateTime), m.Digest, m.Route)
		}
		if err := rows.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	if unanswered != nil {
		unanswered = fmt.Errorf("not everything could be asked, and there may be more: %w", unanswered)
	}
	if !apply {
		_, err := fmt.Fprintf(out, "%s missed: nothing was changed; -apply queues them\n", count(len(missed), "push was", "pushes were"))
		return errors.Join(unanswered, err)
	}
	queued := 0
	for i, m := range missed {
		if i > 0 {
			select {
			case <-ctx.Done():
				return fmt.Errorf("interrupted; %d of %d were queued", queued, len(missed))
			case <-time.After(queueEvery):
			}
		}
		taken, err := finder.Queue(ctx, m)
		if err != nil {
			return errors.Join(fmt.Errorf("%d of %d were queued: %w", queued, len(missed), err), unanswered)
		}
		if taken { // otherwise it was looked at in the meantime
			queued++
		}
	}
	_, err := fmt.Fprintf(out, "%s missed: %d queued\n", count(len(missed), "push was", "pushes were"), queued)
	return errors.Join(unanswered, err)
}
