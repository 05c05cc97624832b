package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/sandbox"
	"github.com/getto-systems/hubrelay/internal/skip"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// The template accepts what Trigger sends, and Notify accepts what the template
// reports. Both functions run as processes, and the coordinator runs the whole
// template between them.
func TestTheTemplateReports(t *testing.T) {
	runner, err := sandbox.NewRunner("../../templates/promote.yml", "../../.tools")
	if err != nil {
		skip.UnlessCI(t, err.Error())
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
	for _, path := range []string{"acme/images/api", "acme/images/each"} {
		gitlab.AddProject(gitlabtest.Project{Path: path, Token: triggerToken})
	}
	emulator := gcptest.Firestore(t)
	common := map[string]string{
		"ROUTES": routes, "LEDGER": "firestore:projects/demo/databases/template", "FIRESTORE_EMULATOR_HOST": emulator, "GOOGLE_CLOUD_PROJECT": "demo",
	}
	trigger := start(t, "Trigger", with(map[string]string{
		"GITLAB_TRIGGER_TOKENS": fmt.Sprintf(`{"*": %q}`, triggerToken), "GITLAB_URL": gitlabServer.URL, "RECONCILE": "off",
		"TOPIC": topic, "DEAD_LETTER_TOPIC": deadLetterTopic, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1", "REGISTRY": images.URL,
	}, with(common, map[string]string{})))
	notify := start(t, "Notify", with(map[string]string{
		"SLACK_BOT_TOKEN": botToken, "SLACK_API_URL": slackServer.URL + "/api/", "OIDC_ISSUER": gitlabServer.URL, "OIDC_AUDIENCE": audience,
		"DEFAULT_CHANNEL": "C0IMAGES",
	}, with(common, map[string]string{})))

	for n, c := range []struct {
		name, repository, tag string
		withoutKey            bool
		says                  string
		replies               int
	}{
		{"success", "acme/api", "1.0.0", false, ":white_check_mark:", 0},
		{"failure", "acme/api", "1.1.0", true, ":x:", 1},
		{"success, by variables", "acme/each", "1.0.0", false, ":white_check_mark:", 0},
		{"nothing to do", "acme/each", "1.0.0", false, ":fast_forward:", 0},
	} {
		ref, err := name.ParseReference(host+"/"+c.repository+":"+c.tag, name.Insecure)
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
		pushed(t, trigger.URL, n, c.repository, c.tag)
		pipelines := gitlab.Pipelines()
		if len(pipelines) != n+1 {
			t.Fatalf("%s: there are %d pipelines", c.name, len(pipelines))
		}
		p := pipelines[n]
		token, err := gitlab.IDToken(gitlabtest.Claims{Project: p.Project, Audience: audience, Ref: p.Ref, RefProtected: true, PipelineID: p.ID})
		if err != nil {
			t.Fatal(err)
		}
		inputs := map[string]string{}
		for name, value := range p.Variables {
			inputs[strings.ToLower(name)] = value
		}
		for name, value := range p.Inputs {
			inputs[name] = fmt.Sprint(value)
		}
		var said strings.Builder
		err = runner.Run(t.Context(), sandbox.Run{
			Registry: host, NotifyURL: notify.URL, Token: token, PipelineURL: p.WebURL, Inputs: inputs, WithoutKey: c.withoutKey,
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
			case !strings.Contains(string(shown), p.WebURL+"|"):
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

// pushed pushes a message to Trigger, as Pub/Sub does.
func pushed(t *testing.T, url string, n int, repository, tag string) {
	t.Helper()
	id := fmt.Sprintf("%064d", n+1)
	now := time.Now().UTC().Format(time.RFC3339Nano)
	data, err := json.Marshal(map[string]string{"id": id, "repository": repository, "tag": tag, "pushed_at": now, "received_at": now})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{
		"deliveryAttempt": 1, "subscription": "projects/demo/subscriptions/trigger",
		"message": map[string]any{
			"data": base64.StdEncoding.EncodeToString(data), "messageId": fmt.Sprint(n + 1), "publishTime": now,
			"attributes": map[string]string{"id": id, "repository": repository, "tag": tag, "source": "webhook"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 10_000))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("Trigger answers %s: %s %v", res.Status, answer, err)
	}
}
