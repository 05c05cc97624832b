package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/hub"
)

const (
	// pollEvery is how often the real Docker Hub is asked about a repository.
	// It was seen to accept 180 requests a minute.
	pollEvery = 15 * time.Second
	// pollPages bounds how many pages are read of one repository. The newest
	// tags come first.
	pollPages = 10
)

// poller replaces the webhooks of the real Docker Hub, which cannot reach this
// machine. It asks for the newest tags, and calls the webhook itself.
type poller struct {
	hub          *dockerHub
	client       *hub.Client
	repositories []string
	every        time.Duration
	began        time.Time

	seen map[string]map[string]time.Time // by repository, after the first answer, and by tag
	said map[string]string               // the last mistake, by repository
}

func newPoller(d *dockerHub, c Config) (*poller, error) {
	client, err := hub.New(cmp.Or(c.HubURL, "https://hub.docker.com"), c.RegistryAuth)
	if err != nil {
		return nil, fmt.Errorf("docker hub: %w", err)
	}
	every := pollEvery
	if c.Backoff != (Backoff{}) {
		every = time.Second
	}
	return &poller{d, client, c.Hub, every, time.Now(), map[string]map[string]time.Time{}, map[string]string{}}, nil
}

func (p *poller) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := p.every
		for _, repository := range p.repositories {
			err := p.poll(ctx, repository)
			var refused *hub.Error
			if errors.As(err, &refused) {
				wait = max(wait, refused.RetryAfter)
			}
			p.say(repository, err)
		}
		pause(ctx, wait)
	}
}

// say adds an event for an error, once.
func (p *poller) say(repository string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
		var refused *hub.Error
		if errors.As(err, &refused) {
			text = refused.Reason // the rest may differ each time
			if refused.Hint != "" {
				text += ": " + refused.Hint
			}
		}
	}
	if text != "" && text != p.said[repository] {
		p.hub.events.add(Event{Who: "docker hub", Image: repository, What: "cannot be asked", Detail: text, Bad: true})
	}
	p.said[repository] = text
}

// poll asks for the tags of a repository. The first answer shows what was there
// before.
func (p *poller) poll(ctx context.Context, repository string) error {
	const skew = 5 * time.Minute // of the clocks
	var tags []hub.Tag
	for cursor, pages := "", 0; pages < pollPages; pages++ {
		page, err := p.client.Tags(ctx, repository, p.began.Add(-skew), cursor)
		if err != nil {
			return err
		}
		tags = append(tags, page.Items...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	before, known := p.seen[repository]
	now := map[string]time.Time{}
	for _, t := range tags {
		now[t.Name] = t.PushedAt
		if !known || !t.PushedAt.After(before[t.Name]) || t.ContentType != "" && t.ContentType != "image" || !dockerhub.MayBeImage(t.MediaType) {
			continue
		}
		image := repository + ":" + t.Name
		body, err := dockerhub.Webhook(repository, t.Name, t.PushedAt)
		if err != nil {
			return err
		}
		p.hub.events.add(Event{Who: "docker hub", Image: image, What: "was pushed to; calls the webhook"})
		p.hub.call(image, body)
	}
	p.seen[repository] = now
	if !known {
		p.hub.events.add(Event{Who: "docker hub", Image: repository, What: "is watched from now on"})
	}
	return nil
}
