package sandbox

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard keeps others from what asks for no token. Webhook and Notify ask for
// one themselves, and the registry is open to whoever reaches it, as pipelines
// and docker push do. All else, as the API, the console and Trigger, is for
// people and programs on this machine: not for the outside if there is a public
// URL, not for a page of another site that has its name lead here, and not for
// one that has a browser send something here. What is open is so to programs:
// Docker, GitLab and Docker Hub name no Origin, and browsers do.
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
