package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// The whole template, run by gitlab-ci-local, reports to Notify as a process.
func TestTheTemplateReports(t *testing.T) {
	runner, err := sandbox.NewRunner("../../templates/promote.yml", "../../.tools")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(runner.Close)

	images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true)))
	t.Cleanup(images.Close)
	host := strings.TrimPrefix(images.URL, "http://")
	slack := slacktest.New(botToken)
	slack.AddChannel("C0IMAGES", "images")
	slackServer := httptest.NewServer(slack)
	t.Cleanup(slackServer.Close)
	var gitlab *gitlabtest.Server
	gitlabServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { gitlab.ServeHTTP(w, r) }))
	t.Cleanup(gitlabServer.Close)
	gitlab = gitlabtest.New(gitlabServer.URL)
	const book = "firestore:projects/demo/databases/template"
	t.Setenv("FIRESTORE_EMULATOR_HOST", gcptest.Firestore(t))
	promotions, err := ledger.Open(book)
	if err != nil {
		t.Fatal(err)
	}
	notify := start(t, "Notify", map[string]string{
		"ROUTES": routes, "SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": slackServer.URL + "/api/",
		"OIDC_ISSUER": gitlabServer.URL, "OIDC_AUDIENCE": audience, "LEDGER": book, "FIRESTORE_EMULATOR_HOST": os.Getenv("FIRESTORE_EMULATOR_HOST"),
	})
	for n, c := range []struct {
		name, tag  string
		withoutKey bool
		says       string
		replies    int
	}{
		{"success", "1.0.0", false, ":white_check_mark:", 0},
		{"nothing to do", "1.0.0", false, ":fast_forward:", 0},
		{"failure", "1.1.0", true, ":x:", 1},
	} {
		ref, err := name.ParseReference(host+"/acme/api:"+c.tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Head(ref); err != nil {
			img, err := random.Image(64, 1)
			if err == nil {
				err = remote.Write(ref, img)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		image, err := remote.Head(ref)
		if err != nil {
			t.Fatal(err)
		}
		token, err := gitlab.IDToken(gitlabtest.Claims{Project: "acme/images/api", Audience: audience, RefProtected: true, PipelineID: n + 1})
		if err != nil {
			t.Fatal(err)
		}
		id, url := fmt.Sprintf("d%d", n+1), fmt.Sprintf("https://gitlab.example/p/%d", n+1)
		claim, err := promotions.Claim(t.Context(), ledger.Push{
			ID: id, Route: "acme/api", Repository: "acme/api", Tag: c.tag, Digest: image.Digest.String(), PerDelivery: true,
		})
		if err == nil {
			err = promotions.Triggered(t.Context(), claim, url)
		}
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		err = runner.Run(context.Background(), sandbox.Run{
			Registry: host, NotifyURL: notify.URL, Token: token, PipelineURL: url, WithoutKey: c.withoutKey,
			Inputs: map[string]string{
				"image_repository": "acme/api", "image_tag": c.tag, "image_digest": image.Digest.String(), "delivery_id": id,
			},
		}, func(line string) { said.WriteString(line + "\n") })
		if (err != nil) != c.withoutKey {
			t.Errorf("%s: %v\n%s", c.name, err, said.String())
		}
		top, replies := 0, 0
		last := ""
		for _, m := range slack.Messages() {
			shown, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case !strings.Contains(string(shown), url+"|"):
			case m.ThreadTS != "":
				replies++
			default:
				top++
				last = m.Text
			}
		}
		if top != 1 || replies != c.replies || !strings.HasPrefix(last, c.says) {
			t.Errorf("%s: Slack shows %d messages, the last %q, and %d replies\n%s", c.name, top, last, replies, said.String())
		}
	}
}
