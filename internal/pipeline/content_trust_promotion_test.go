package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// trusting returns the inputs of a promotion with content trust.
func (h *hub) trusting(server *notaryServer) []string {
	server.init(h.t, h.image)
	return []string{
		"signing", "content-trust", "DOCKER_CONTENT_TRUST_SERVER", server.url, "@NOTARY_CA_FILE", server.ca,
		"@NOTARY_KEY_FILE", server.export(h.t, "targets", h.image), "NOTARY_TARGETS_PASSPHRASE", targetsPassphrase,
	}
}

func TestContentTrustPromotes(t *testing.T) {
	t.Parallel()
	h, server := newHub(t, true), startNotary(t)
	with := h.trusting(server)
	digest := h.pushIndex("1.4.1")
	h.promote("1.4.1", digest, append(with, "image_pushed_at", at(2), "latest_policy", "semver")...).want(0, "success", "signed; latest moved to it")
	h.wantTag("latest", digest)
	trusted := server.run(t, "list", h.image)
	for _, tag := range []string{"1.4.1", "latest"} {
		if out := server.run(t, "lookup", h.image, tag); !strings.Contains(out, digest) {
			t.Errorf("%s is signed as %s", tag, out)
		}
	}
	got := h.promote("1.4.1", digest, append(with, "image_pushed_at", at(2), "CI_PIPELINE_URL", url2)...)
	got.want(0, "skipped", "signed already; latest is this image already")
	if len(got.all) != 0 || server.run(t, "list", h.image) != trusted {
		t.Errorf("it changed something: %v\n%s", got.all, server.run(t, "list", h.image))
	}

	// An older push that comes late.
	older := h.push("1.4.0")
	h.promote("1.4.0", older, append(with, "image_pushed_at", at(1), "latest_policy", "semver")...).want(0, "success", "signed; latest stays, because it was pushed later")
	h.wantTag("latest", digest)

	server.stop()
	h.promote("1.4.1", digest, append(with, "CI_PIPELINE_URL", url2)...).want(6, "failure", "it is not known whether it is signed")
}

// If another promotion moves latest in the same moment, that one signs it.
func TestContentTrustDoesNotSignALatestThatMovedOn(t *testing.T) {
	t.Parallel()
	h, server := newHub(t, true), startNotary(t)
	with := h.trusting(server)
	h.push("other")
	newer := h.get("other")
	digest := h.push("1.0.0")
	looked := 0
	h.always(`^HEAD .*/manifests/latest$`, func() {
		if looked++; looked == 3 { // before it was moved, after, and before it is signed
			h.put("latest", newer)
		}
	})
	h.promote("1.0.0", digest, with...).want(0, "success", "latest was moved by another promotion in the same moment")
	if out, err := server.try("lookup", h.image, "latest"); err == nil {
		t.Errorf("latest is signed as %s", out)
	}
}

func TestTheEndOfDockersNotaryIsReported(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	with := h.trusting(startNotary(t))
	digest := h.push("1.0.0")
	for date, c := range map[string]struct {
		code int
		says string
	}{
		// Docker's server cannot be reached here: before its shutdown, that is
		// the failure.
		"20261207": {6, "notary.docker.io shuts down on 2026-12-08"},
		"20261208": {2, "notary.docker.io was shut down on 2026-12-08"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "date"), []byte("#!/bin/sh\necho "+date+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		h.promote("1.0.0", digest, append(with, "DOCKER_CONTENT_TRUST_SERVER", "", "PATH", dir+":"+tools(t)+":"+os.Getenv("PATH"))...).
			want(c.code, "failure", c.says)
	}
}
