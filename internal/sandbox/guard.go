package sandbox

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard protects everything that requires no token. Webhook and Notify require
// one themselves, and the registry is open to everyone who can reach it, such as
// pipelines and docker push. Everything else, such as the API, the console and
// Trigger, is only for people and programs on this machine: not for requests by
// the public URL, not for a page of another site that points its name here, and
// not for a request that such a page makes a browser send. The open paths refuse
// the browsers of other sites, too: Docker, GitLab and Docker Hub send no
// Origin, and browsers do.
func (s *Sandbox) guard(c Config, h http.Handler) http.Handler {
	public := strings.TrimPrefix(strings.TrimPrefix(c.PublicURL, "https://"), "http://")
	open := []string{"webhook", "notify"}
	if c.PublicURL == "" || c.Registry == "" {
		open = append(open, "v2")
	}
	sites := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		browser := r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != ""
		if slices.Contains(open, first) && !browser {
			h.ServeHTTP(w, r)
			return
		}
		forwarded := r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("X-Forwarded-Host") != "" || r.Header.Get("Forwarded") != ""
		switch {
		case c.PublicURL != "" && (r.Host == public || forwarded):
			http.NotFound(w, r)
		case !isLocal(r.Host) && "http://"+r.Host != s.URL:
			refuse(w, r, http.StatusForbidden, "this is for this machine alone: call it by "+s.URL)
		case sites.Check(r) != nil:
			refuse(w, r, http.StatusForbidden, "a page of another site sends this: open "+s.URL)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// isLocal reports whether a Host header names this machine, whatever the port.
func isLocal(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.IsLoopback()
}
