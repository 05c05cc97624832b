package check

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/route"
)

func (c *checker) routes(s settings) {
	if needs := s.need("ROUTES"); len(needs) > 0 {
		for _, id := range IDs("routes") {
			c.add(id, "", needs, nil)
		}
		return
	}
	all := s.trigger.Routes.All()
	if len(all) == 0 {
		c.known("routes.table", "", fail("Write a route into ROUTES: without one no push is promoted.", "there is no route"))
		return
	}
	var keys []string
	for _, r := range all {
		keys = append(keys, r.Key)
	}
	for _, key := range keys {
		if err := dockerhub.CheckShort(key); err != nil {
			c.known("routes.table", key, fail("Change the key in ROUTES: as it is, it matches no push.", "%v", err))
		}
	}
	c.known("routes.table", "", pass("%s, tried in this order: %s", count(len(all), "route"), strings.Join(keys, ", ")))
	for _, r := range all {
		c.known("routes.tags", r.Key, tags(r))
	}
	c.uncovered(s)
}

// tags says whether a route can promote anything.
func tags(r route.Route) result {
	everything := slices.ContainsFunc(r.Tags.Exclude, func(p string) bool { return strings.Trim(p, "*") == "" })
	if len(r.Tags.Include) == 0 {
		switch {
		case everything:
			return fail("Take * out of tags.exclude: it matches every tag.", "tags.exclude has * alone")
		case len(r.Tags.Exclude) == 0:
			return pass("every tag but %s", r.Latest)
		}
		return pass("every tag but %s and what %s match", r.Latest, quoted(r.Tags.Exclude))
	}
	var dead []string
	for _, pattern := range r.Tags.Include {
		literal := !strings.HasPrefix(pattern, "semver:") && !route.IsGlob(pattern)
		if everything || excluded(pattern, r.Tags.Exclude) || literal && r.Unwanted(pattern) != "" {
			dead = append(dead, pattern)
		}
	}
	const mend = "Change tags.include or tags.exclude. hubrelay check -explain REPOSITORY:TAG says what becomes of one tag."
	switch {
	case len(dead) == len(r.Tags.Include):
		return fail(mend, "no tag can be promoted: what %s match is excluded, or is the moving tag %s", quoted(dead), r.Latest)
	case len(dead) > 0:
		return warn(mend, "nothing is promoted by %s: every tag that matches is excluded, or is the moving tag %s", quoted(dead), r.Latest)
	}
	return pass("what %s match", quoted(r.Tags.Include))
}

// excluded tells whether all that a pattern matches is excluded, as far as the patterns
// themselves show it: v* excludes v1.*.
func excluded(pattern string, by []string) bool {
	return slices.ContainsFunc(by, func(p string) bool {
		if p == pattern {
			return true
		}
		if strings.HasPrefix(p, "semver:") || strings.HasPrefix(pattern, "semver:") || strings.ContainsAny(p, `?[]\`) {
			return false // another kind, or a wildcard that the pattern's own * may stand for by chance
		}
		matches, err := path.Match(p, oneOf.ReplaceAllLiteralString(pattern, "?"))
		return err == nil && matches
	})
}

// oneOf finds what stands for a single character in a glob. Its letters are not part
// of every tag that matches: *-* does not exclude v[0-9].
var oneOf = regexp.MustCompile(`\\.|\[(?:\\.|[^\]\\])*\]`)

// uncovered says where missed pushes are not looked for.
func (c *checker) uncovered(s settings) {
	keys := s.trigger.Routes.Uncovered()
	switch {
	case s.trigger.Hub == nil:
		c.known("routes.missed", "", notAsked("Docker Hub is not asked for missed pushes"))
	case len(keys) > 0:
		c.known("routes.missed", "", warn(
			"Write a key for each namespace, such as acme/*, for reconcile to find pushes that no webhook reported.",
			"there is no namespace in %s; missed pushes are looked for in %s", quoted(keys), cmp.Or(strings.Join(s.trigger.Routes.Namespaces(), ", "), "none")))
	default:
		c.known("routes.missed", "", pass("%s", strings.Join(s.trigger.Routes.Namespaces(), ", ")))
	}
}

// target is a repository and its route.
type target struct {
	repository string      // "" where it is not known which the route's key matches
	tag        string      // that somebody named, or ""
	route      route.Route // placeholders filled where the repository is known
}

// targets are what there is to look at.
type targets struct {
	list []target
	// open are keys of routes of which not all repositories are looked at, and why.
	open map[string]result
	keys []string // of open, in their order
}

// leave notes a key of which not all repositories are looked at.
func (t *targets) leave(key string, why result) {
	if _, ok := t.open[key]; !ok {
		t.keys = append(t.keys, key)
	}
	t.open[key] = why
}

// perGlob bounds the repositories that are looked at for a glob, and maxTargets
// all of them.
const (
	perGlob    = 5
	maxTargets = 100
)

// targets finds the repositories that the routes match. For globs Docker Hub is
// asked.
func (c *checker) targets(ctx context.Context, s settings) targets {
	found := targets{open: map[string]result{}}
	if !c.wantsSection("gitlab") && !c.wantsSection("dockerhub") && !c.wantsSection("deployed") {
		return found
	}
	named := map[string][]Image{} // by the key of their route
	for _, i := range c.Images {
		if r, ok := s.trigger.Routes.Find(i.Repository); ok && !slices.Contains(named[r.Key], i) {
			named[r.Key] = append(named[r.Key], i)
		}
	}
	lists := c.listed(ctx, s, named)
	for _, r := range s.trigger.Routes.All() {
		images := named[r.Key]
		if !route.IsGlob(r.Key) && !slices.ContainsFunc(images, func(i Image) bool { return i.Repository == r.Key }) {
			images = append(images, Image{Repository: r.Key})
		}
		if len(images) == 0 {
			images = matching(s, r, lists, &found)
		}
		if len(found.list)+len(images) > maxTargets {
			found.leave(r.Key, unknown("Check fewer routes at once: give ROUTES with some of them, in a file for -env.", "no more than %d repositories are checked", maxTargets))
			continue
		}
		for _, i := range images {
			if filled, ok := s.trigger.Routes.Find(i.Repository); ok {
				found.list = append(found.list, target{i.Repository, i.Tag, filled})
			}
		}
		if len(images) == 0 && !strings.Contains(r.GitLab.Project, "{") {
			found.list = append(found.list, target{route: r})
		}
	}
	return found
}

// listed are the repositories of a namespace.
type listed struct {
	names []string
	err   error
}

// namespaceOf returns the namespace that a glob names, or "".
func namespaceOf(key string) string {
	namespace, _, ok := strings.Cut(key, "/")
	if !ok || route.IsGlob(namespace) {
		return ""
	}
	return namespace
}

// listed asks Docker Hub for the repositories of each namespace of which a route is a
// glob, of all at once, for everything else waits for it.
func (c *checker) listed(ctx context.Context, s settings, named map[string][]Image) map[string]listed {
	lists := map[string]listed{}
	if s.trigger.Hub == nil {
		return lists
	}
	for _, r := range s.trigger.Routes.All() {
		if namespace := namespaceOf(r.Key); route.IsGlob(r.Key) && namespace != "" && len(named[r.Key]) == 0 {
			lists[namespace] = listed{}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var (
		asking errgroup.Group
		mu     sync.Mutex
	)
	asking.SetLimit(atOnce)
	for _, namespace := range slices.Collect(maps.Keys(lists)) {
		asking.Go(func() error {
			page, err := s.trigger.Hub.Repositories(ctx, namespace, "")
			list := listed{err: err}
			slices.SortStableFunc(page.Items, newestFirst)
			for _, repository := range page.Items {
				list.names = append(list.names, repository.Name)
			}
			mu.Lock()
			defer mu.Unlock()
			lists[namespace] = list
			return nil
		})
	}
	_ = asking.Wait() // each has its own error
	return lists
}

// matching returns some repositories that a glob matches, those that were pushed
// last, or notes why it knows none.
func matching(s settings, r route.Route, lists map[string]listed, found *targets) []Image {
	open := func(why result) []Image {
		found.leave(r.Key, why)
		return nil
	}
	const mend = "Name a repository with -image."
	namespace := namespaceOf(r.Key)
	switch {
	case namespace == "":
		return open(notAsked("the key names no namespace, so its repositories are not known; -image names one"))
	case s.trigger.Hub == nil:
		return open(notAsked("Docker Hub is not asked which repositories the key matches; -image names one"))
	}
	list := lists[namespace]
	if list.err != nil {
		return open(unknown(mend, "Docker Hub did not list which repositories %s has: %v", namespace, list.err))
	}
	var images []Image
	for _, name := range list.names {
		if of, ok := s.trigger.Routes.Find(name); ok && of.Key == r.Key {
			images = append(images, Image{Repository: name})
		}
	}
	if rest := len(images) - perGlob; rest > 0 {
		images = images[:perGlob]
		open(notAsked("only the %d that were pushed last are checked, of %d repositories; -image names another", perGlob, perGlob+rest))
	}
	if len(images) == 0 {
		return open(notAsked("Docker Hub shows no repository that the key matches; -image names one"))
	}
	return images
}

// quoted lists patterns.
func quoted(list []string) string {
	var quoted []string
	for _, text := range list {
		quoted = append(quoted, fmt.Sprintf("%q", text))
	}
	return strings.Join(quoted, ", ")
}

// count is a number of things, such as 2 routes.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
