package pipeline

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/skip"
)

const (
	username = "canary-user"
	password = "canary-password"
	url1     = "https://gitlab.example/acme/images/api/-/pipelines/1"
	url2     = "https://gitlab.example/acme/images/api/-/pipelines/2"
)

// at is a time that is later the larger n is, written in several ways.
func at(n int) string {
	when := time.Date(2026, 11, 25, 12, n, 0, 0, time.UTC)
	switch n % 3 {
	case 1:
		return when.In(time.FixedZone("", 9*3600)).Format(time.RFC3339)
	case 2:
		return when.Add(time.Millisecond).Format(time.RFC3339Nano)
	}
	return when.Format(time.RFC3339)
}

// bothKinds runs a test against a registry with the referrers API, and against
// one without, for cosign stores its signatures differently.
func bothKinds(t *testing.T, test func(*testing.T, *hub)) {
	t.Parallel()
	for kind, referrers := range map[string]bool{"with referrers": true, "without referrers": false} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, newHub(t, referrers))
		})
	}
}

func TestFirstBuildIsSignedAndBecomesLatest(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		for i, tag := range []string{"1.0.0", "2.0.0"} {
			digest := []func(string) string{h.push, h.pushIndex}[i](tag)
			got := h.promote(tag, digest)
			got.want(0, "success", "signed; latest moved to it")
			h.wantSigned(digest, tag, url1)
			h.wantTag("latest", digest)
			h.wantTag(tag, digest)
			// Apart from the signature, only `latest` was pushed.
			if n := got.writes("PUT /v2/acme/api/manifests/" + tag); n != 0 {
				t.Errorf("the tag %s was pushed %d times", tag, n)
			}
			if n := got.writes("PUT /v2/acme/api/manifests/latest"); n != 1 {
				t.Errorf("latest was pushed %d times", n)
			}
		}
	})
}

func TestASignedPushChangesNothing(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		for _, policy := range []string{"auto", "semver", "always"} {
			if policy == "auto" {
				h.promote("1.0.0", digest).want(0, "success", "signed; latest moved to it")
			}
			got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2, "latest_policy", policy, "image_pushed_at", at(9))
			got.want(0, "skipped", "signed already; latest is this image already")
			if len(got.all) != 0 {
				t.Errorf("%s: it wrote: %v", policy, got.all)
			}
		}
		h.promote("1.0.0", digest).want(0, "success", "signed; latest is this image already") // its own pipeline, retried
	})
}

// Signing and moving are two steps: the image that is signed is not signed
// again, and latest is still moved.
func TestAHalfDonePromotionContinues(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.refuse(http.StatusForbidden, `^PUT .*/manifests/latest$`)
		h.promote("1.0.0", digest).want(3, "failure", "signed, but latest could not be moved")
		h.wantSigned(digest, "1.0.0", url1)

		h.refuse(0, "")
		got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2)
		got.want(0, "success", "signed already; latest moved to it")
		if !slices.Equal(got.all, []string{"PUT /v2/acme/api/manifests/latest"}) {
			t.Errorf("it wrote more than latest: %v", got.all)
		}
		h.wantTag("latest", digest)
	})
}

func TestARegistryThatFailsForAWhile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, requests string
		status, times  int
		code           int
		message        string
	}{
		{"one 429 for latest", `^PUT .*/manifests/latest$`, 429, 1, 0, "latest moved to it"},
		{"429 for latest, for long", `^PUT .*/manifests/latest$`, 429, 99, 6, "signed, but latest could not be moved"},
		{"one 429 for the signature", `^PUT .*/manifests/sha256:`, 429, 1, 0, "latest moved to it"},
		{"429 for the signature, for long", `^PUT .*/manifests/sha256:`, 429, 99, 6, "could not be signed at the moment"},
		{"one 429 for the tag", `^(HEAD|GET) .*/manifests/1.0.0$`, 429, 2, 0, "latest moved to it"},
		{"one 503 for the list of signatures", `^GET .*/referrers/`, 503, 1, 0, "latest moved to it"},
		{"one 429 for the list of tags", `^GET .*/tags/list`, 429, 1, 0, "latest moved to it"},
		{"a signature that is refused", `^PUT .*/manifests/sha256:`, 403, 99, 5, "could not be signed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, true)
			digest := h.push("1.0.0")
			h.refuseTimes(c.times, c.status, c.requests)
			status := "failure"
			if c.code == 0 {
				status = "success"
			}
			h.promote("1.0.0", digest).want(c.code, status, c.message)
			h.refuse(0, "")
			h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2)
			h.wantTag("latest", digest)
			h.wantSignatures(digest, 1)
		})
	}
}

func TestExitCodesThatMayPassAreRetried(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.refuseTimes(4, http.StatusTooManyRequests, `^PUT .*/manifests/latest$`) // three to an attempt
	p, runner := pipelineWith(t, h.shell, "", "registry", h.host, "image_repository", "acme/api", "image_tag", "1.0.0", "image_digest", digest)
	p.Jobs = slices.DeleteFunc(p.Jobs, func(j *job) bool { return j.Name != "hubrelay-promote" })
	result, err := runner.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Jobs["hubrelay-promote"]; got.Number != 2 || got.Dotenv["HUBRELAY_STATUS"] != "success" {
		t.Errorf("got %+v", got)
	}
	h.wantTag("latest", digest)
	h.wantSignatures(digest, 1)

	h.refuse(http.StatusForbidden, `^PUT .*/manifests/latest$`)
	p, runner = pipelineWith(t, h.shell, "", "registry", h.host, "image_repository", "acme/api", "image_tag", "1.0.1", "image_digest", h.push("1.0.1"))
	p.Jobs = slices.DeleteFunc(p.Jobs, func(j *job) bool { return j.Name != "hubrelay-promote" })
	if result, err = runner.Run(t.Context(), p); err != nil || result.Jobs["hubrelay-promote"].Number != 1 {
		t.Errorf("what is refused: %v, %+v", err, result)
	}
}

func TestTheSameImageUnderAnotherTagIsSignedUnderIt(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0-rc1")
		h.promote("1.0.0-rc1", digest).want(0, "success", "latest stays, for 1.0.0-rc1 is not a stable version")
		h.tag(digest, "1.0.0")
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "success", "signed; latest moved to it")
		h.wantSigned(digest, "1.0.0", url2)
		h.wantSigned(digest, "1.0.0-rc1", url1)
		h.promote("1.0.0-rc1", digest, "CI_PIPELINE_URL", url2+"0").want(0, "skipped", "signed already")
	})
}

func TestASignatureThatNamesNoTagCounts(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.sign(digest, "cosign")
		got := h.promote("1.0.0", digest)
		got.want(0, "success", "signed already; latest moved to it")
		if len(got.all) != 1 {
			t.Errorf("it wrote: %v", got.all)
		}
	})
}

// In cosign's bundles an attestation looks like a signature, even to `cosign
// verify`.
func TestAnAttestationIsNoSignature(t *testing.T) {
	for _, by := range []string{"cosign", "other"} {
		t.Run("by "+by, func(t *testing.T) {
			bothKinds(t, func(t *testing.T, h *hub) {
				digest := h.push("1.0.0")
				h.attest(digest, by)
				h.promote("1.0.0", digest).want(0, "success", "signed; latest moved to it")
				h.wantSigned(digest, "1.0.0", url1)
				h.attest(digest, by)
				h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "skipped", "signed already")
			})
		})
	}
}

func TestASignatureInTheFormatOfCosign2Counts(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.promote("1.0.0", digest, "signature_format", "legacy").want(0, "success", "signed; latest moved to it")
		h.cosign("verify", "--new-bundle-format=false", "--key", keys(t)+"/cosign.pub", "--insecure-ignore-tlog=true", "-a", "tag=1.0.0", h.image+"@"+digest)
		for _, format := range []string{"bundle", "legacy"} {
			got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2, "signature_format", format)
			got.want(0, "skipped", "signed already")
			if len(got.all) != 0 {
				t.Errorf("%s: it wrote: %v", format, got.all)
			}
		}
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2, "@COSIGN_KEY", keys(t)+"/other.key").want(4, "failure", "another key")
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2, "@COSIGN_KEY", keys(t)+"/other.key", "@COSIGN_PUBLIC_KEYS", keys(t)+"/cosign.pub").
			want(0, "skipped", "signed already")
	})
}

func TestWhenLatestMoves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, policy string
		others       string
		tag          string
		moves        bool
	}{
		{"a newer version", "auto", "1.0.0 1.9.9", "1.10.0", true},
		{"an older patch", "auto", "1.2.0 2.0.0", "1.2.1", false},
		{"the same version with a v", "auto", "1.2.1", "v1.2.1", true},
		{"a version with a v below one without", "auto", "2.0.0", "v1.2.1", false},
		{"a pre-release", "auto", "1.0.0", "2.0.0-rc.1", false},
		{"a version above a pre-release of a higher one", "auto", "2.0.0-rc.1 2.0.0-alpine", "1.0.1", true},
		{"a version that is not full", "auto", "1.0.0", "2.0", false},
		{"a date", "auto", "1.0.0", "20261123", false},
		{"a date with dots", "auto", "1.0.0", "2026.11.23", false},
		{"a version beside dates", "auto", "2026.11.22 20261122", "1.0.1", true},
		{"a number beyond 64 bits", "auto", "1.99999999999999999999.0", "1.100000000000000000000.0", true},
		{"a number below one beyond 64 bits", "auto", "1.99999999999999999999.0", "1.99999999999999999998.0", false},
		{"a word", "auto", "", "main", false},
		{"semver: an older patch", "semver", "2.0.0", "1.2.1", true},
		{"semver: a pre-release", "semver", "", "2.0.0-rc.1", false},
		{"always: a date", "always", "2.0.0", "20261123", true},
		{"never: a newer version", "never", "1.0.0", "2.0.0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, true)
			before := h.push("latest")
			for _, other := range strings.Fields(c.others) {
				h.tag(before, other)
			}
			digest := h.push(c.tag)
			h.promote(c.tag, digest, "latest_policy", c.policy).want(0, "success", "signed; latest ")
			h.wantSigned(digest, c.tag, url1)
			if c.moves {
				h.wantTag("latest", digest)
			} else {
				h.wantTag("latest", before)
			}
		})
	}
}

// A chart with the image's name and its own version is not a version of the
// image.
func TestOnlyAnImageCountsAsAHigherVersion(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	h.put("child", childManifest)
	h.put("9.0.0", artifacts(t)["a Helm chart"].manifest)
	h.put("8.0.0", artifacts(t)["a build cache"].manifest)
	digest := h.push("1.0.0")
	h.promote("1.0.0", digest).want(0, "success", "latest moved to it")
	h.push("2.0.0")
	h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "skipped", "latest stays, for 2.0.0 is higher")
}

// The pipelines of several pushes run in any order, and old ones again.
func TestLatestNeverGoesBack(t *testing.T) {
	type run struct {
		tag    string
		pushed int
	}
	t.Parallel()
	for n, c := range []struct {
		name, policy string
		runs         []run
		ends         string
	}{
		{"auto: the versions in order", "auto", []run{{"1.4.0", 1}, {"1.4.1", 2}}, "1.4.1"},
		{"auto: the older one late", "auto", []run{{"1.4.1", 2}, {"1.4.0", 1}}, "1.4.1"},
		{"auto: an older version that was pushed last", "auto", []run{{"1.4.1", 1}, {"1.3.9", 2}}, "1.4.1"},
		{"auto: one version, written twice", "auto", []run{{"v1.4.1", 2}, {"1.4.1", 1}}, "v1.4.1"},
		{"semver: the older push late", "semver", []run{{"1.4.1", 2}, {"1.4.0", 1}}, "1.4.1"},
		{"semver: an older version that was pushed last", "semver", []run{{"1.4.1", 1}, {"1.3.9", 2}}, "1.3.9"},
		{"semver: run again", "semver", []run{{"1.4.0", 1}, {"1.4.1", 2}, {"1.4.0", 1}}, "1.4.1"},
		{"semver: a pre-release in between does not count", "semver", []run{{"1.4.0", 1}, {"1.5.0-rc1", 4}, {"1.4.1", 2}}, "1.4.1"},
		{"semver: pushed once more", "semver", []run{{"1.4.0", 1}, {"1.4.1", 2}, {"1.4.0", 3}, {"1.4.1", 2}}, "1.4.0"},
		{"always: run again", "always", []run{{"main", 1}, {"dev", 2}, {"main", 1}}, "dev"},
		{"always: the older push late", "always", []run{{"b", 4}, {"a", 3}}, "b"},
		{"always: pushed once more", "always", []run{{"a", 1}, {"b", 2}, {"a", 5}, {"b", 2}}, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, n%2 == 0)
			digests := map[string]string{}
			for i, r := range c.runs {
				if digests[r.tag] == "" {
					digests[r.tag] = h.push(r.tag)
				}
				got := h.promote(r.tag, digests[r.tag], "latest_policy", c.policy, "image_pushed_at", at(r.pushed),
					"CI_PIPELINE_URL", fmt.Sprintf("https://gitlab.example/p/%d", i+1))
				if got.code != 0 {
					t.Errorf("%s: exit code %d\n%s", r.tag, got.code, got.log)
				}
			}
			h.wantTag("latest", digests[c.ends])
		})
	}
}

func TestTimesAreCompared(t *testing.T) {
	t.Parallel()
	later := []string{
		"1999-12-31T23:59:59Z", "2026-02-28T23:59:59.9Z", "2026-03-01T00:00:00+00:30", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00.000000001Z",
		"2026-03-01T00:00:00.1Z", "2026-11-25T12:00:00+09:00", "2026-11-25T12:00:00Z", "2026-11-25T12:00:00.5Z", "2026-11-25T12:00:00-01:00", "2027-01-01T00:00:00Z",
	}
	later[2], later[1] = later[1], later[2] // half an hour before midnight
	var script strings.Builder
	script.WriteString(read(t, "common.sh"))
	promote, _, _ := strings.Cut(read(t, "promote.sh"), "\npromote() {")
	script.WriteString(promote + "\n")
	for i, one := range later {
		for k, other := range later {
			fmt.Fprintf(&script, "if later %s %s; then echo %d; else echo 0; fi\n", one, other, map[bool]int{true: 1}[i > k]*2-1+map[bool]int{true: 1}[i <= k])
		}
	}
	script.WriteString("if later '' 2026-11-25T12:00:00Z || ! later 2026-11-25T12:00:00Z '' || later yesterday 2026-11-25T12:00:00Z; then echo wrong; fi\n")
	for _, shell := range [][]string{{"bash"}, {"busybox", "sh"}} {
		command := exec.Command(shell[0], append(shell[1:], "-c", script.String())...)
		if shell[0] == "busybox" {
			if _, err := exec.LookPath("busybox"); err != nil {
				skip.UnlessCI(t, "busybox is not installed")
			}
			command.Env = []string{"PATH=" + applets(t)}
		}
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		lines := strings.Fields(string(out))
		if len(lines) != len(later)*len(later) {
			t.Fatalf("%v: %d answers: %s", shell, len(lines), out)
		}
		for i := range later {
			for k := range later {
				if got := lines[i*len(later)+k]; (got == "1") != (i > k) {
					t.Errorf("%v: %s later than %s: %s", shell, later[i], later[k], got)
				}
			}
		}
	}
}

func TestAnotherTagMayBeTheOneThatMoves(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.promote("1.0.0", digest, "latest", "stable").want(0, "success", "stable moved to it")
	h.wantTag("stable", digest)
	h.promote("stable", digest, "latest", "stable").want(0, "skipped", "not promoted itself")
}

func TestLatestIsNotPushedWhereItIsAlready(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	h.tag(digest, "latest")
	got := h.promote("1.0.0", digest)
	got.want(0, "success", "latest is this image already")
	if n := got.writes("PUT /v2/acme/api/manifests/latest"); n != 0 {
		t.Errorf("latest was pushed %d times", n)
	}
}

func TestTheTagIsPushedAgainIfAsked(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.pushIndex("1.0.0")
	got := h.promote("1.0.0", digest, "push_again", "true")
	got.want(0, "success", "")
	if n := got.writes("PUT /v2/acme/api/manifests/1.0.0"); n != 1 {
		t.Errorf("the tag was pushed %d times", n)
	}
	h.wantTag("1.0.0", digest)
}

func TestSignaturesMayBeInAnotherRepository(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		got := h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures")
		got.want(0, "success", "")
		for _, write := range got.all {
			if strings.Contains(write, "/acme/api/") && !strings.HasSuffix(write, "/manifests/latest") {
				t.Errorf("it wrote to the image's repository: %s", write)
			}
		}
		h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures", "CI_PIPELINE_URL", url2).
			want(0, "skipped", "signed already")
	})
}

// cosign 3.0 would sign there, and never find it again.
func TestAnOldCosignCannotUseASignatureRepository(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	dir := t.TempDir()
	fake := "#!/bin/sh\n[ \"$1\" != version ] || { echo 'GitVersion:    v3.0.6'; exit; }\nexec " + tools(t) + "/cosign \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cosign"), []byte(fake), 0o700); err != nil {
		t.Fatal(err)
	}
	path := dir + ":" + tools(t) + ":" + os.Getenv("PATH")
	digest := h.push("1.0.0")
	got := h.promote("1.0.0", digest, "PATH", path, "signature_repository", "acme/api-signatures")
	got.want(2, "failure", "cosign 3.1 or later")
	if len(got.all) != 0 {
		t.Errorf("it wrote: %v", got.all)
	}
	h.promote("1.0.0", digest, "PATH", path).want(0, "success", "")
}

func TestATagThatMovedOnIsLeftAlone(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		older := h.push("1.0.0")
		newer := h.push("1.0.0")
		for tag, found := range map[string]string{"1.0.0": newer, "1.0.1": "is gone"} {
			got := h.promote(tag, older)
			got.want(0, "superseded", found)
			if len(got.all) != 0 {
				t.Errorf("it wrote: %v", got.all)
			}
			if got.dotenv["HUBRELAY_DIGEST"] != older {
				t.Errorf("the report is about %s", got.dotenv["HUBRELAY_DIGEST"])
			}
		}
		h.wantTag("1.0.0", newer)
	})
}

func TestATagThatMovesDuringThePromotionDoesNotBecomeLatest(t *testing.T) {
	t.Parallel()
	for _, again := range []string{"false", "true"} {
		h := newHub(t, false)
		before := h.push("latest")
		older := h.push("1.0.0")
		newer := make(chan string, 1)
		h.once(`^PUT .*/manifests/sha256-`, func() { newer <- h.push("1.0.0") })
		h.promote("1.0.0", older, "push_again", again).want(0, "superseded", "another image")
		h.wantTag("latest", before)
		select {
		case digest := <-newer:
			h.wantTag("1.0.0", digest)
		default:
			t.Error("nothing was signed, so the tag did not move")
		}
	}
}

func TestWithoutADigestTheTagIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	got := h.promote("1.0.0", "")
	got.want(0, "success", "")
	if got.dotenv["HUBRELAY_DIGEST"] != digest {
		t.Errorf("the report hears of %s", got.dotenv["HUBRELAY_DIGEST"])
	}
	h.promote("1.0.1", "").want(3, "failure", "has no acme/api:1.0.1")
}

const somePromotion = "0123456789abcdef0123456789abcdef"

func TestNamesMayComeAsVariables(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	other := h.push("2.0.0")
	h.promote("", "", "image_repository", "", "IMAGE_REPOSITORY", "acme/api", "IMAGE_TAG", "1.0.0", "IMAGE_DIGEST", digest,
		"IMAGE_PUSHED_AT", at(1), "PROMOTION_ID", somePromotion, "latest_policy", "semver").want(0, "success", "latest moved to it")
	// Missing inputs are not replaced by variables IMAGE_… of the project.
	h.promote("1.0.0", "", "IMAGE_DIGEST", other, "IMAGE_TAG", "2.0.0", "latest_policy", "semver").want(0, "success", "signed; latest is this image already")
}

func TestWhatCannotBeDoneFailsAndWritesNothing(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := read(t, keys(t)+"/cosign.key")
	for _, c := range []struct {
		name string
		with []string
		code int
		says string
	}{
		{"no such repository", []string{"image_repository", "acme/web", "image_digest", ""}, 3, "has no acme/web:1.0.0"},
		{"a wrong password", []string{"DOCKERHUB_TOKEN", "wrong"}, 3, "did not say"},
		{"no password", []string{"DOCKERHUB_TOKEN", ""}, 2, "DOCKERHUB_TOKEN is missing"},
		{"no key", []string{"COSIGN_KEY", ""}, 2, "COSIGN_KEY"},
		{"a key that is not in a file", []string{"COSIGN_KEY", "-----BEGIN"}, 2, "type File"},
		{"a key that is empty", []string{"@COSIGN_KEY", file("empty", "")}, 2, "is not a key of cosign"},
		{"a key that is cut", []string{"@COSIGN_KEY", file("cut", key[:len(key)/2])}, 2, "is truncated or changed"},
		{"the public key", []string{"@COSIGN_KEY", keys(t) + "/cosign.pub"}, 2, "is the public key"},
		{"a wrong password of the key", []string{"COSIGN_PASSWORD", "wrong"}, 2, "COSIGN_PASSWORD is not its password"},
		{"a key in a service that has none", []string{"key", "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k"}, 2, "from its service"},
		{"other keys that are not in a file", []string{"COSIGN_PUBLIC_KEYS", "-----BEGIN"}, 2, "COSIGN_PUBLIC_KEYS is not a file"},
		{"other keys that are invalid", []string{"@COSIGN_PUBLIC_KEYS", file("none", "hello")}, 2, "has no public key"},
		{"keyless without an id token", []string{"signing", "cosign-keyless"}, 2, "SIGSTORE_ID_TOKEN"},
		{"a registry that is down", []string{"registry", "127.0.0.1:1"}, 6, "did not say"},
	} {
		got := h.promote("1.0.0", digest, c.with...)
		got.want(c.code, "failure", c.says)
		if len(got.all) != 0 {
			t.Errorf("%s: it wrote: %v", c.name, got.all)
		}
		if !strings.HasPrefix(c.name, "a wrong password") && strings.Contains(got.log, "COSIGN_PASSWORD") {
			t.Errorf("%s: it asks for the password:\n%s", c.name, got.log)
		}
	}
}

// cosign reads a registry that fails as one that has no signature.
func TestARegistryThatFailsWhenAskedForSignatures(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		signed, unsigned := h.push("1.0.0"), h.push("1.0.1")
		h.promote("1.0.0", signed).want(0, "success", "")
		for status, code := range map[int]int{200: 6, 403: 3, 429: 6, 500: 6} { // 200: a proxy's page
			for requests, tags := range map[string][]string{
				`^GET .*(/referrers/|/manifests/sha256-[0-9a-f]*$)`: {"1.0.0", "1.0.1"},
				`\.sig$`:         {"1.0.1"},
				`^GET .*/blobs/`: {"1.0.0"},
			} {
				if status == 200 && len(tags) == 1 {
					continue
				}
				h.refuse(status, requests)
				for _, tag := range tags {
					got := h.promote(tag, map[string]string{"1.0.0": signed, "1.0.1": unsigned}[tag], "CI_PIPELINE_URL", url2)
					got.want(code, "failure", "it is not known whether it is signed")
					if len(got.all) != 0 {
						t.Errorf("%d to %s: it wrote %v", status, requests, got.all)
					}
				}
				h.refuse(0, "")
			}
		}
		h.wantSignatures(signed, 1)
	})
}

// Docker Hub gives tokens for the password, each for one repository.
func TestARegistryWithTokens(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	h.bearer = true
	digest := h.push("1.0.0")
	h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures").want(0, "success", "signed; latest moved to it")
	h.promote("1.0.0", digest, "signature_repository", "acme/api-signatures", "CI_PIPELINE_URL", url2).want(0, "skipped", "signed already")
	h.promote("1.0.0", digest, "DOCKERHUB_TOKEN", "wrong").want(3, "failure", "did not say")
	h.refuse(http.StatusTooManyRequests, `^GET /token`)
	h.promote("1.0.0", digest).want(6, "failure", "did not say")
}

func TestASignatureByAnotherKeyIsADoubt(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.push("1.0.0")
		h.promote("1.0.0", digest, "@COSIGN_KEY", keys(t)+"/other.key").want(0, "success", "")
		got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2)
		got.want(4, "failure", "by another key")
		if len(got.all) != 0 {
			t.Errorf("it wrote: %v", got.all)
		}
		// A key that was ours before it was replaced.
		h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2, "@COSIGN_PUBLIC_KEYS", keys(t)+"/both.pub").want(0, "skipped", "signed already")
	})
}

// A registry that accepts a push and loses it: what was written is read back.
func TestAnOverwrittenSignatureIsNoticed(t *testing.T) {
	t.Parallel()
	h := newHub(t, false)
	h.push("latest")
	digest := h.push("1.0.0")
	h.refuse(http.StatusCreated, `^PUT .*/manifests/sha256-`)
	h.promote("1.0.0", digest).want(4, "failure", "cannot be verified")
	h.refuse(http.StatusCreated, `^PUT .*/manifests/latest$`)
	h.promote("1.0.0", digest).want(3, "failure", "latest did not move")
}

// Without the referrers API the list of signatures is a tag, which is read,
// changed and written. An attestation at the same moment removes our signature.
func TestASignatureThatIsTakenAwayIsMadeAgain(t *testing.T) {
	t.Parallel()
	for format, end := range map[string]string{"bundle": "", "legacy": ".sig"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, false)
			digest := h.push("1.0.0")
			tag := "sha256-" + strings.TrimPrefix(digest, "sha256:") + end
			// What is there already is a signature of somebody else, for
			// another tag.
			with := []string{"image_tag", "0.9.0", "signature_format", format}
			h.tag(digest, "0.9.0")
			h.promote("0.9.0", digest, with...).want(0, "success", "signed")
			list := h.get(tag)
			seen := 0
			h.always(`^GET .*/manifests/`+tag+`$`, func() {
				if seen++; seen == map[string]int{"bundle": 4, "legacy": 6}[format] { // ours has just been seen there
					h.put(tag, list)
				}
			})
			got := h.promote("1.0.0", digest, "signature_format", format)
			got.want(0, "success", "signed; ")
			if !strings.Contains(got.log, "the signature is gone again") {
				t.Errorf("nothing was taken away: %d\n%s", seen, got.log)
			}
			h.always(`^$`, func() {})
			h.cosign("verify", "--new-bundle-format="+map[string]string{"bundle": "true", "legacy": "false"}[format],
				"--key", keys(t)+"/cosign.pub", "--insecure-ignore-tlog=true", "-a", "tag=1.0.0", h.image+"@"+digest)
		})
	}
}

func TestSettingsOfTheProjectDoNotDivertSigning(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	got := h.promote("1.0.0", digest, "COSIGN_REPOSITORY", h.host+"/acme/elsewhere", "COSIGN_NEW_BUNDLE_FORMAT", "false",
		"COSIGN_USE_SIGNING_CONFIG", "true", "COSIGN_DOCKER_MEDIA_TYPES", "1", "COSIGN_OUTPUT_FILE", "/nowhere/x", "COSIGN_RECURSIVE", "true")
	got.want(0, "success", "signed; latest moved to it")
	h.wantSigned(digest, "1.0.0", url1)
	for _, write := range got.all {
		if strings.Contains(write, "elsewhere") || strings.HasSuffix(write, ".sig") {
			t.Errorf("it wrote %s", write)
		}
	}
}

// With a key only the registry is contacted, so a closed network costs no time.
func TestAKeyNeedsNoNetwork(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	asked, proxy := recordingProxy(t)
	digest := h.push("1.0.0")
	for _, format := range []string{"bundle", "legacy"} {
		h.promote("1.0.0", digest, "HTTPS_PROXY", proxy, "HTTP_PROXY", proxy, "signature_format", format).
			want(0, "success", "signed")
	}
	if hosts := asked(); len(hosts) != 0 {
		t.Errorf("it asked %v", hosts)
	}
}

func TestHostileNames(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	digest := h.push("1.0.0")
	for n, hostile := range []string{
		"$(touch owned)", "`touch owned`", "a;touch owned", "a\ntouch owned", "1.0.0\n", "--help", "-", "a b", "'", `"`, `\`,
		"../../etc", "*", "é", "1.0.0\r", strings.Repeat("a", 300), strings.Repeat("a", 100_000),
	} {
		for i, variable := range []string{"IMAGE_TAG", "IMAGE_REPOSITORY", "IMAGE_DIGEST", "IMAGE_PUSHED_AT"} {
			if i > 0 && n%3 != 0 {
				continue // they are checked alike
			}
			names := map[string]string{"PROMOTION_ID": somePromotion, "IMAGE_REPOSITORY": "acme/api", "IMAGE_TAG": "1.0.0", "IMAGE_DIGEST": digest, variable: hostile}
			with := []string{"image_repository", ""}
			for k, v := range names {
				with = append(with, k, v)
			}
			got := h.promote("", "", with...)
			got.want(2, "failure", "is not a ")
			if len(got.all) != 0 {
				t.Errorf("%q as %s: it wrote: %v", hostile, variable, got.all)
			}
			if len(hostile) > 2 && strings.Contains(got.log, hostile) {
				t.Errorf("%q as %s is repeated", hostile, variable)
			}
			if owned, _ := filepath.Glob(filepath.Join(got.dir, "builds", "*", "*", "*", "owned")); len(owned) > 0 {
				t.Errorf("%q as %s was run", hostile, variable)
			}
		}
	}
}

func TestTwoJobsAtOnce(t *testing.T) {
	bothKinds(t, func(t *testing.T, h *hub) {
		digest := h.pushIndex("1.0.0")
		var group sync.WaitGroup
		for _, url := range []string{url1, url2} {
			group.Go(func() {
				got := h.promote("1.0.0", digest, "CI_PIPELINE_URL", url)
				if got.code != 0 {
					t.Errorf("exit code %d\n%s", got.code, got.log)
				}
			})
		}
		group.Wait()
		h.wantTag("latest", digest)
		h.wantTag("1.0.0", digest)
		h.cosign("verify", "--key", keys(t)+"/cosign.pub", "--insecure-ignore-tlog=true", "-a", "tag=1.0.0", h.image+"@"+digest)
	})
}

// The runner takes bash if there is one, and Alpine has BusyBox; an older
// runner starts the script in another way.
func TestEveryShell(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"dash -l", "bash -l", "busybox sh -l"} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			command := strings.Fields(shell)
			if _, err := exec.LookPath(command[0]); err != nil {
				skip.UnlessCI(t, command[0]+" is not installed")
			}
			h := newHub(t, true)
			h.shell, h.old = command, command[0] == "dash"
			if command[0] == "busybox" {
				h.path = applets(t)
			}
			h.tag(h.push("0.10.0"), "latest")
			digest := h.pushIndex("1.0.0")
			h.promote("1.0.0", digest, "validate", "true", "latest_policy", "semver").want(0, "success", "latest moved to it")
			h.promote("1.0.0", digest, "CI_PIPELINE_URL", url2).want(0, "skipped", "signed already")
			older := h.push("0.11.0")
			h.promote("0.11.0", older).want(0, "success", "1.0.0 is higher")
			h.promote("1.0.1", digest).want(0, "superseded", "gone")
			h.promote("", "", "PROMOTION_ID", somePromotion, "IMAGE_REPOSITORY", "acme/api", "IMAGE_TAG", "1.0.0\n1").want(2, "failure", "is not a tag")
			h.put("3.0.0", artifacts(t)["a Helm chart"].manifest)
			got := h.promote("3.0.0", "")
			got.want(0, "skipped", "helm")
			if left, err := os.ReadDir(filepath.Join(got.dir, "tmp")); err != nil || len(left) != 0 {
				t.Errorf("left in TMPDIR: %v, %v", left, err)
			}
		})
	}
}

func TestNoCredentialsAreLeftOrShown(t *testing.T) {
	t.Parallel()
	h := newHub(t, true)
	got := h.promote("1.0.0", h.push("1.0.0"))
	got.want(0, "success", "")
	h.refuse(http.StatusForbidden, `^PUT .*/manifests/latest$`)
	failed := h.promote("1.0.1", h.push("1.0.1"))
	for _, o := range []outcome{got, failed} {
		if strings.Contains(o.log, password) || strings.Contains(o.log, "Authorization") || strings.Contains(fmt.Sprint(o.dotenv), password) {
			t.Errorf("the log holds the password:\n%s", o.log)
		}
	}
	err := filepath.WalkDir(got.dir, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(file)
		if bytes.Contains(text, []byte(password)) || strings.HasSuffix(file, "config.json") {
			t.Errorf("%s is left", file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(got.dir, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in TMPDIR: %v, %v", left, err)
	}
}
