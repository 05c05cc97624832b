package check

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/registry"
	"github.com/getto-systems/hubrelay/internal/route"
)

func newestFirst(a, b hub.Repository) int { return b.UpdatedAt.Compare(a.UpdatedAt) }

// dockerhub looks at the registry, and at Docker Hub's API.
func (c *checker) dockerhub(s settings, t targets) {
	needs := s.need("REGISTRY_AUTH", "REGISTRY", "HUB_URL")
	if len(needs) > 0 || s.trigger.Images == nil {
		for _, id := range IDs("dockerhub") {
			c.add(id, "", needs, func(context.Context) result { return notAsked("REGISTRY is wrong") })
		}
		return
	}
	account := c.add("dockerhub.account", "", nil, func(ctx context.Context) result { return signIn(ctx, s.trigger.Hub, c.get("REGISTRY_AUTH") != "") })

	var limit atomic.Pointer[registry.Pulls]
	var pulls []*probe
	for _, key := range t.keys {
		c.known("dockerhub.pull", key, t.open[key])
	}
	if routes := s.need("ROUTES"); len(routes) > 0 {
		c.add("dockerhub.pull", "", routes, nil)
		c.add("dockerhub.missed", "", routes, nil)
	}
	seen := map[string]bool{}
	for _, target := range t.list {
		if target.repository == "" {
			continue
		}
		subject := target.repository
		if seen[subject] { // with another tag
			subject += ":" + cmp.Or(target.tag, target.route.Latest)
		}
		if seen[subject] {
			continue
		}
		seen[target.repository], seen[subject] = true, true
		pulls = append(pulls, c.add("dockerhub.pull", subject, nil, func(ctx context.Context) result {
			return c.pull(ctx, s, target, &limit)
		}))
	}
	c.add("dockerhub.limit", "", nil, func(context.Context) result {
		if limit.Load() == nil && !slices.ContainsFunc(pulls, (*probe).ok) {
			return notAsked("the registry has answered about no repository")
		}
		return limited(limit.Load(), c.get("REGISTRY_AUTH") != "")
	}).after = pulls
	c.missed(s, account, t)
}

func signIn(ctx context.Context, client *hub.Client, given bool) result {
	switch {
	case !given:
		return notAsked("REGISTRY_AUTH is not set: hubrelay sees public repositories only")
	case client == nil:
		return notAsked("Docker Hub's API is not asked; dockerhub.pull shows whether the registry accepts the account")
	}
	signedIn, err := client.SignIn(ctx)
	switch {
	case err != nil:
		return hubRefusal(err)
	case !signedIn:
		return notAsked("REGISTRY_AUTH has no account for Docker Hub")
	}
	return pass("Docker Hub accepts the account")
}

func hubRefusal(err error) result {
	var e *hub.Error
	if !errors.As(err, &e) {
		return unknown(again, "%v", err)
	}
	if !e.Temporary() {
		return fail(cmp.Or(sentence(e.Hint), "Correct the repository's key in ROUTES."), "%v", err)
	}
	return unknown(cmp.Or(sentence(e.Hint), "Run it again when Docker Hub answers."), "%v", err)
}

// sentence makes one of a hint.
func sentence(hint string) string {
	if hint == "" {
		return ""
	}
	hint = strings.ToUpper(hint[:1]) + hint[1:]
	if !strings.HasSuffix(hint, ".") {
		hint += "."
	}
	return hint
}

// pull asks the registry for a tag of a repository. The answer that there is no
// such tag needs the right to pull, too.
func (c *checker) pull(ctx context.Context, s settings, t target, limit *atomic.Pointer[registry.Pulls]) result {
	tag := cmp.Or(t.tag, t.route.Latest)
	digest, pulls, err := s.trigger.Images.Look(ctx, t.repository, tag)
	if pulls != nil {
		limit.CompareAndSwap(nil, pulls)
	}
	var e *registry.Error
	if err == nil {
		return pass("%s is %.19s", tag, digest)
	}
	if !errors.As(err, &e) {
		return unknown(again, "%v", err)
	}
	switch {
	case e.Reason == registry.NotInRegistry && t.tag != "":
		return fail("Push the tag, or name another one.", "the repository may be pulled, and has no tag %s", tag)
	case e.Reason == registry.NotInRegistry:
		return pass("it may be pulled, and has no tag %s yet", tag)
	case e.Reason == registry.Denied && c.Deployed && c.get("REGISTRY_AUTH") == "":
		return unknown("Give REGISTRY_AUTH, as what is deployed has it.", "nobody may pull it, and REGISTRY_AUTH is not given here")
	case e.Reason == registry.Denied:
		return fail(e.Hint, "%v", err)
	}
	return unknown(cmp.Or(e.Hint, "Run it again when the registry answers."), "%v", err)
}

func limited(p *registry.Pulls, account bool) result {
	whose := "of this machine's address, not of the functions'"
	if account {
		whose = "of the account"
	}
	switch {
	case p == nil:
		return pass("the registry names no limit")
	case p.Remaining*10 < p.Limit:
		return warn("Set REGISTRY_AUTH to an account with a higher limit, or see what else pulls.", "%d of %d pulls are left, %s", p.Remaining, p.Limit, whose)
	}
	return pass("%d of %d pulls are left, %s", p.Remaining, p.Limit, whose)
}

// missed says by what reconcile finds the pushes that no webhook told of.
func (c *checker) missed(s settings, account *probe, t targets) {
	if s.trigger.Hub == nil {
		why := "RECONCILE is off"
		if c.get("RECONCILE") != "off" {
			why = "REGISTRY is not Docker Hub's, and HUB_URL is not set"
		}
		c.known("dockerhub.missed", "", warn("Set RECONCILE=on, or HUB_URL: a webhook that Docker Hub fails to deliver is lost.", "missed pushes are not looked for: %s", why))
		return
	}
	repositories := map[string]string{} // one for each namespace
	for _, target := range t.list {
		namespace, _, _ := strings.Cut(target.repository, "/")
		if repositories[namespace] == "" {
			repositories[namespace] = target.repository
		}
	}
	for _, namespace := range s.trigger.Routes.Namespaces() {
		repository := repositories[namespace]
		c.add("dockerhub.missed", namespace, nil, func(ctx context.Context) result {
			return source(ctx, s.trigger.Hub, namespace, repository)
		}).after = []*probe{account} // one login is enough
	}
}

func source(ctx context.Context, client *hub.Client, namespace, repository string) result {
	_, err := client.Pushes(ctx, namespace, time.Now().Add(-time.Hour), time.Time{}, "")
	switch {
	case err == nil:
		return pass("by the audit log of %s", namespace)
	case !errors.Is(err, hub.ErrNoAuditLog):
		return hubRefusal(err)
	case repository == "":
		return notAsked("there is no audit log, and no repository of the namespace is known; -image names one")
	}
	if _, err = client.Tags(ctx, repository, time.Now().Add(-24*time.Hour), ""); err != nil {
		return hubRefusal(err)
	}
	return pass("by the tags of its repositories, such as %s: there is no audit log", repository)
}

// heard says whether Docker Hub's webhook of a repository works, as the ledger has
// it.
func (c *checker) heard(s settings, t targets) {
	needs := s.need("LEDGER", "ROUTES")
	if routes := s.need("ROUTES"); len(routes) > 0 {
		c.add("deployed.heard", "", routes, nil)
	}
	open := sync.OnceValues(func() (*ledger.Ledger, error) { return ledger.Open(string(s.trigger.Ledger)) })
	seen := map[string]bool{"": true}
	for _, target := range t.list {
		if seen[target.repository] {
			continue
		}
		seen[target.repository] = true
		c.add("deployed.heard", target.repository, needs, func(ctx context.Context) result {
			if s.trigger.Ledger.InMemory() {
				return notAsked("a ledger in memory cannot be read from here")
			}
			const mend = "Sign in: gcloud auth application-default login."
			book, err := open()
			if err != nil {
				return unknown(mend, "the ledger cannot be read: %v", err)
			}
			called, found, err := book.Webhooks(ctx, target.repository)
			if err != nil {
				return unknown(mend, "the ledger cannot be read: %v", err)
			}
			newest, known := time.Time{}, false
			if !called && s.trigger.Hub != nil {
				newest, known = newestPush(ctx, s.trigger.Hub, target)
			}
			return judgeHeard(called, found, newest, known)
		})
	}
	for _, key := range t.keys {
		c.known("deployed.heard", key, t.open[key])
	}
}

func judgeHeard(called bool, found int, newest time.Time, known bool) result {
	const mend = "In the repository on Docker Hub, under Webhooks, paste WEBHOOK_URL, a slash and a token; its View history shows what came of a call."
	switch {
	case called:
		return pass("Docker Hub has called")
	case found > 0:
		return fail(mend, "Docker Hub has never called, and reconcile has found %s that it did not report", pushes(found))
	case known:
		return warn(mend, "Docker Hub has never called; the newest push is of %s, perhaps from before the webhook was there", newest.UTC().Format(time.DateTime))
	}
	return notAsked("Docker Hub has never called, and no push is known that it should have reported")
}

// newestPush returns when a tag was pushed last that the route promotes.
func newestPush(ctx context.Context, client *hub.Client, t target) (at time.Time, known bool) {
	page, err := client.Tags(ctx, t.repository, time.Time{}, "")
	if err != nil {
		return at, false
	}
	for _, tag := range page.Items {
		if wanted(t.route, tag.Name) && tag.PushedAt.After(at) {
			at, known = tag.PushedAt, true
		}
	}
	return at, known
}

func wanted(r route.Route, tag string) bool { return r.Unwanted(tag) == "" }

func pushes(n int) string {
	if n == 1 {
		return "1 push"
	}
	return strconv.Itoa(n) + " pushes"
}
