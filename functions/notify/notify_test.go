package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/slack"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// brokenLedger fails in the methods for which an error is set.
type brokenLedger struct {
	*ledger.Ledger
	get, find, report, bury, note, due, tick, shown error
}

func (l *brokenLedger) Get(ctx context.Context, id string) (ledger.Promotion, error) {
	if l.get != nil {
		return ledger.Promotion{}, l.get
	}
	return l.Ledger.Get(ctx, id)
}

func (l *brokenLedger) OfPipeline(ctx context.Context, project, id string) (ledger.Promotion, error) {
	if l.find != nil {
		return ledger.Promotion{}, l.find
	}
	return l.Ledger.OfPipeline(ctx, project, id)
}

func (l *brokenLedger) Report(ctx context.Context, id string, r ledger.Report, o ledger.Outboxes) (ledger.Outcome, error) {
	if l.report != nil {
		return ledger.Outcome{}, l.report
	}
	return l.Ledger.Report(ctx, id, r, o)
}

func (l *brokenLedger) Bury(ctx context.Context, letter ledger.Letter, o ledger.Outboxes) (ledger.Outcome, error) {
	if l.bury != nil {
		return ledger.Outcome{}, l.bury
	}
	return l.Ledger.Bury(ctx, letter, o)
}

func (l *brokenLedger) Note(ctx context.Context, p ledger.Promotion, o ledger.Outboxes) (ledger.Outcome, error) {
	if l.note != nil {
		return ledger.Outcome{}, l.note
	}
	return l.Ledger.Note(ctx, p, o)
}

func (l *brokenLedger) Due(ctx context.Context, limit int) ([]ledger.Promotion, error) {
	if l.due != nil {
		return nil, l.due
	}
	return l.Ledger.Due(ctx, limit)
}

func (l *brokenLedger) Tick(ctx context.Context, id string, o ledger.Outboxes) (*ledger.Showing, error) {
	if l.tick != nil {
		return nil, l.tick
	}
	return l.Ledger.Tick(ctx, id, o)
}

func (l *brokenLedger) Shown(ctx context.Context, s ledger.Showing, r ledger.Result, o ledger.Outboxes) (*ledger.Showing, error) {
	if l.shown != nil {
		return nil, l.shown
	}
	return l.Ledger.Shown(ctx, s, r, o)
}

// broken makes Notify use a ledger that fails.
func (w *world) broken(l brokenLedger) {
	l.Ledger = w.ledger
	w.settings.Promotions = &l
	w.restart()
}

func TestEveryRowOfTheTable(t *testing.T) {
	t.Parallel()
	errAway := errors.New("away")
	for _, c := range []struct {
		name   string
		do     func(w *world, id string) answer // id is of a promotion of acme/api:1.4.0 with pipeline 7
		status int
		words  []string
		state  ledger.State // of the promotion, afterwards
		shown  int          // messages
	}{
		{"recorded, and Slack shows it", func(w *world, id string) answer {
			return w.report("status", "running", "promotion_id", id).ok()
		}, 200, []string{`"channel":"C0IMAGES"`, `"ts":"1.0"`}, ledger.Running, 1},
		{"recorded as JSON", func(w *world, id string) answer {
			return w.call("/", staticToken, `{"status":"success","promotion_id":"`+id+`","digest":null}`).ok()
		}, 200, nil, ledger.Promoted, 1},
		{"a release that tell keeps out of the channel", func(w *world, _ string) answer {
			a := w.report("status", "success", "event", "release", "repository", "acme/quiet", "version", "2")
			if strings.TrimSpace(a.raw) != "{}" {
				w.t.Errorf("got %s", a.raw)
			}
			return a
		}, 200, nil, ledger.Triggered, 0},
		{"a promotion that tell keeps out of the channel", func(w *world, _ string) answer {
			quiet := w.triggered("acme/quiet", "1", 8)
			a := w.report("status", "success", "promotion_id", quiet)
			w.state(quiet, ledger.Promoted)
			if strings.TrimSpace(a.raw) != "{}" {
				w.t.Errorf("got %s", a.raw)
			}
			return a
		}, 200, nil, ledger.Triggered, 0},
		{"a promotion that is not known", func(w *world, _ string) answer {
			return w.report("status", "success", "repository", "acme/api", "tag", "1.4.0", "promotion_id", ledger.NewID()).ok()
		}, 200, []string{`"warning":`, "no promotion changes"}, ledger.Triggered, 1},
		{"no promotion, and no pipeline that is known", func(w *world, _ string) answer {
			return w.from(pipeline{id: "99"}, "status", "success", "repository", "acme/api").ok()
		}, 200, []string{`"warning":`, "no promotion changes"}, ledger.Triggered, 1},
		{"no promotion, with a shared token", func(w *world, _ string) answer {
			return w.report("status", "success", "repository", "acme/api").ok()
		}, 200, []string{`"warning":`, "no promotion changes"}, ledger.Triggered, 1},
		{"no promotion, by its own pipeline", func(w *world, _ string) answer {
			return w.from(pipeline{}, "status", "success").ok()
		}, 200, nil, ledger.Promoted, 1},
		{"the digest is not the promotion's", func(w *world, id string) answer {
			return w.report("status", "success", "promotion_id", id, "digest", digestB)
		}, 200, []string{`"warning":`, "digest"}, ledger.Triggered, 0},
		{"Slack is down", func(w *world, id string) answer {
			w.slack.err = &slack.Error{Cause: errAway}
			return w.report("status", "success", "promotion_id", id)
		}, 202, []string{`"slack":`}, ledger.Promoted, 0},
		{"Slack fails", func(w *world, id string) answer {
			w.slack.err = &slack.Error{Status: 500}
			return w.report("status", "success", "promotion_id", id)
		}, 202, []string{`"slack":`}, ledger.Promoted, 0},
		{"Slack limits", func(w *world, id string) answer {
			w.slack.err = &slack.Error{Status: 429, Code: "ratelimited", RetryAfter: time.Minute}
			return w.report("status", "success", "promotion_id", id)
		}, 202, []string{`"slack":`}, ledger.Promoted, 0},
		{"Slack refuses, and a person can fix it", func(w *world, id string) answer {
			w.slack.err = &slack.Error{Status: 200, Code: "not_in_channel", Hint: "invite the bot to the channel"}
			return w.report("status", "success", "promotion_id", id)
		}, 202, []string{`"slack":`, "not_in_channel", "invite the bot"}, ledger.Promoted, 0},
		{"Slack refuses a message without a promotion", func(w *world, _ string) answer {
			w.slack.err = &slack.Error{Status: 200, Code: "is_archived", Hint: "unarchive it"}
			return w.report("status", "success", "event", "deploy", "repository", "acme/api")
		}, 202, []string{`"slack":`, "is_archived", "unarchive it"}, ledger.Triggered, 0},
		{"no status", func(w *world, id string) answer { return w.report("promotion_id", id) }, 400, []string{"status is required"}, ledger.Triggered, 0},
		{"a status that cannot be understood", func(w *world, id string) answer {
			return w.report("promotion_id", id, "status", "done")
		}, 400, []string{`status is \"done\"`}, ledger.Triggered, 0},
		{"not JSON", func(w *world, _ string) answer { return w.call("/", staticToken, `{"status":`) }, 400, []string{"not JSON"}, ledger.Triggered, 0},
		{"no repository, by whom no route is known", func(w *world, _ string) answer {
			return w.report("status", "success", "event", "release")
		}, 400, []string{"repository is required"}, ledger.Triggered, 0},
		{"no token", func(w *world, id string) answer {
			return w.call("/", "", form("status", "success", "promotion_id", id))
		}, 401, []string{"no valid bearer token"}, ledger.Triggered, 0},
		{"a forged token", func(w *world, id string) answer {
			for range 50 {
				w.call("/", "forged", form("status", "success", "promotion_id", id)).is(401)
			}
			return w.call("/", "forged", form("status", "success", "promotion_id", id))
		}, 401, []string{"no valid bearer token"}, ledger.Triggered, 0},
		{"a token without a project", func(w *world, id string) answer {
			return w.call("/", `{"ref_protected":"true"}`, form("status", "success", "promotion_id", id))
		}, 401, nil, ledger.Triggered, 0},
		{"a project that the route does not name", func(w *world, _ string) answer {
			return w.from(pipeline{project: "66", path: "evil/api", id: "1"}, "status", "success", "repository", "acme/api")
		}, 403, []string{"does not name the project evil/api"}, ledger.Triggered, 0},
		{"a project that no route names", func(w *world, _ string) answer {
			return w.from(pipeline{project: "66", path: "evil/api", id: "1"}, "status", "success")
		}, 403, []string{"no route names the project evil/api"}, ledger.Triggered, 0},
		{"a branch that is not protected", func(w *world, id string) answer {
			return w.from(pipeline{ref: "false"}, "status", "success", "promotion_id", id)
		}, 403, []string{"not protected"}, ledger.Triggered, 0},
		{"another pipeline than the promotion's", func(w *world, id string) answer {
			return w.from(pipeline{id: "8"}, "status", "success", "promotion_id", id)
		}, 403, []string{"not that of this pipeline"}, ledger.Triggered, 0},
		{"another project's pipeline", func(w *world, id string) answer {
			return w.from(pipeline{project: "66", path: "evil/api"}, "status", "success", "promotion_id", id)
		}, 403, nil, ledger.Triggered, 0},
		{"no route, and no promotion that is known", func(w *world, _ string) answer {
			return w.report("status", "success", "repository", "nobody/api", "promotion_id", ledger.NewID())
		}, 404, []string{"no route for nobody/api"}, ledger.Triggered, 0},
		{"another path", func(w *world, _ string) answer { return w.call("/silent", staticToken, "status=success") }, 404, nil, ledger.Triggered, 0},
		{"another method", func(w *world, _ string) answer {
			a := w.do(httptest.NewRequest("GET", "/", nil))
			if a.header.Get("Allow") != "POST" {
				w.t.Errorf("Allow is %q", a.header.Get("Allow"))
			}
			return a
		}, 405, nil, ledger.Triggered, 0},
		{"ready", func(w *world, _ string) answer { return w.do(httptest.NewRequest("GET", "/ready", nil)) }, 200, []string{"ok"}, ledger.Triggered, 0},
		{"too large", func(w *world, id string) answer {
			return w.report("status", "success", "promotion_id", id, "message", strings.Repeat("x", 64<<10))
		}, 413, []string{"over 65536 bytes"}, ledger.Triggered, 0},
		{"the ledger is down: the promotion cannot be read", func(w *world, id string) answer {
			w.broken(brokenLedger{get: errAway})
			return w.report("status", "success", "promotion_id", id)
		}, 503, nil, ledger.Triggered, 0},
		{"the ledger is down: the pipeline cannot be found", func(w *world, _ string) answer {
			w.broken(brokenLedger{find: errAway})
			return w.from(pipeline{}, "status", "success")
		}, 503, nil, ledger.Triggered, 0},
		{"the ledger is down: the report cannot be recorded", func(w *world, id string) answer {
			w.broken(brokenLedger{report: errAway})
			return w.report("status", "success", "promotion_id", id)
		}, 503, nil, ledger.Triggered, 0},
		{"the ledger is down: a note cannot be recorded", func(w *world, _ string) answer {
			w.broken(brokenLedger{note: errAway})
			return w.report("status", "success", "event", "release", "repository", "acme/api")
		}, 503, nil, ledger.Triggered, 0},
		{"the issuer of id tokens is down", func(w *world, id string) answer {
			w.settings.IDTokens = noIssuer{}
			w.restart()
			return w.from(pipeline{}, "status", "success", "promotion_id", id)
		}, 503, nil, ledger.Triggered, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				a := c.do(w, id).is(c.status, c.words...)
				if strings.Contains(a.raw, "away\"") {
					w.t.Errorf("the cause shows in %s", a.raw)
				}
				w.state(id, c.state)
				w.shows(c.shown, 0)
			})
		})
	}
}

type noIssuer struct{}

func (noIssuer) Verify(context.Context, string, any) error { return errors.New("no answer") }

// TestReportsAsPeopleWriteThem: a report is accepted whenever it can be
// understood.
func TestReportsAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	const promote, deploy = slack.Promote, slack.Deploy
	for _, c := range []struct {
		name, body string
		event      slack.Event
		status     slack.Status
		text       string // that Slack shows
		version    string
		warning    string
	}{
		{"an ampersand that was not encoded", "status=failure&repository=acme/api&message=fix foo & bar", promote, slack.Failure, "fix foo & bar", "", ""},
		{"two of them, and one at the end", "status=failure&repository=acme/api&message=a && b &", promote, slack.Failure, "a && b &", "", ""},
		{"one before what looks like a field", "status=failure&repository=acme/api&message=retry until x&status=success", promote, slack.Failure, "retry until x&status=success", "", ""},
		{"one in an address", "status=failure&repository=acme/api&message=see https://ci.example/?a=1&b=2", promote, slack.Failure, "see https://ci.example/?a=1&b=2", "", ""},
		{"a percent sign that was not encoded", "status=failure&repository=acme/api&message=coverage at 73% of lines", promote, slack.Failure, "coverage at 73% of lines", "", ""},
		{"a percent sign at the end", "status=failure&repository=acme/api&message=100%", promote, slack.Failure, "100%", "", ""},
		{"a percent sign before one digit", "status=failure&repository=acme/api&message=100%2", promote, slack.Failure, "100%2", "", ""},
		{"one that was encoded", "status=failure&repository=acme%2Fapi&message=100%25%26+more%0A", promote, slack.Failure, "100%& more", "", ""},
		{"a semicolon", "status=failure&repository=acme/api&message=a; b", promote, slack.Failure, "a; b", "", ""},
		{"an equals sign", "status=failure&repository=acme/api&message=x=y==z", promote, slack.Failure, "x=y==z", "", ""},
		{"Latin-1", "status=failure&repository=acme/api&message=caf\xe9", promote, slack.Failure, "caf\ufffd", "", ""},
		{"Latin-1, encoded", "status=failure&repository=acme/api&message=caf%E9", promote, slack.Failure, "caf\ufffd", "", ""},
		{"Latin-1 in JSON", "{\"status\":\"failure\",\"repository\":\"acme/api\",\"message\":\"caf\xe9\"}", promote, slack.Failure, "caf\ufffd", "", ""},
		{"Shift JIS", "status=failure&repository=acme/api&message=\x83\x65\x83\x58\x83\x67", promote, slack.Failure, "\ufffde\ufffdX\ufffdg", "", ""},
		{"a byte order mark before JSON", "\ufeff{\"status\":\"failure\",\"repository\":\"acme/api\"}", promote, slack.Failure, "", "", ""},
		{"a byte order mark before a form", "\ufeffstatus=failure&repository=acme/api", promote, slack.Failure, "", "", ""},
		{"white space around everything", "\r\n status=failure &repository= acme/api \r\n", promote, slack.Failure, "", "", ""},
		{"a number in JSON", `{"status":"failure","repository":"acme/api","version":12,"message":3.50}`, promote, slack.Failure, "3.50", "12", ""},
		{"a boolean, a list and an object in JSON", `{"status":"failure","repository":"acme/api","version":true,"message":["a",{"b":1}]}`, promote, slack.Failure, `["a",{"b":1}]`, "true", ""},
		{"null in JSON", `{"status":"failure","repository":"acme/api","message":null,"tag":null}`, promote, slack.Failure, "", "", ""},
		{"half a surrogate in JSON", `{"status":"failure","repository":"acme/api","message":"\ud83d"}`, promote, slack.Failure, "\ufffd", "", ""},
		{"an emoji", `{"status":"failure","repository":"acme/api","message":"🚀"}`, promote, slack.Failure, "🚀", "", ""},
		{"GitLab's own status", "status=failed&repository=acme/api&event=deploy", deploy, slack.Failure, "", "", ""},
		{"GitLab's own status of a canceled job", "status=canceled&repository=acme/api", promote, slack.Failure, "The job was canceled.", "", ""},
		{"a status in capitals", "status=SUCCESS&repository=acme/api&event=Deploy", deploy, slack.Success, "", "", ""},
		{"a message that is too long", "status=failure&repository=acme/api&message=" + strings.Repeat("x", 2001), promote, slack.Failure, strings.Repeat("x", 1999) + "…", "", ""},
		{"a long message in Japanese", "status=failure&repository=acme/api&message=" + strings.Repeat("あ", 2001), promote, slack.Failure, strings.Repeat("あ", 1999) + "…", "", ""},
		{"a message that is just short enough", "status=failure&repository=acme/api&message=" + strings.Repeat("あ", 2000), promote, slack.Failure, strings.Repeat("あ", 2000), "", ""},
		{"a version that is too long", "status=failure&repository=acme/api&version=" + strings.Repeat("1", 500), promote, slack.Failure, "", strings.Repeat("1", 127) + "…", ""},
		{"an unknown field", "status=failure&repository=acme/api&pipelineurl=x", promote, slack.Failure, "", "", `\"pipelineurl\" is not a field`},
		{"a field of before", "status=failure&repository=acme/api&ts=1.1", promote, slack.Failure, "", "", `\"ts\" is not a field`},
		{"an unknown event", "status=failure&repository=acme/api&event=party", promote, slack.Failure, "", "", `event is \"party\"`},
		{"an invalid tag", "status=failure&repository=acme/api&tag=a b", promote, slack.Failure, "", "", "tag is left out"},
		{"an invalid digest", "status=failure&repository=acme/api&digest=sha256:00", promote, slack.Failure, "", "", "digest is left out"},
		{"an invalid address", "status=failure&repository=acme/api&pipeline_url=javascript:alert(1)", promote, slack.Failure, "", "", "pipeline_url is left out"},
		{"an address that is too long", "status=failure&repository=acme/api&pipeline_url=https://x.example/" + strings.Repeat("x", 3000), promote, slack.Failure, "", "", "pipeline_url is left out"},
		{"an invalid promotion_id", "status=failure&repository=acme/api&promotion_id=$PROMOTION_ID", promote, slack.Failure, "", "", "promotion_id is left out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				a := w.call("/", staticToken, c.body).ok()
				top, _ := w.slack.shown()
				if len(top) != 1 {
					w.t.Fatalf("Slack shows %d messages", len(top))
				}
				if m := top[0]; m.Event != c.event || m.Status != c.status || m.Text != c.text || m.Version != c.version || m.Repository != "acme/api" {
					w.t.Errorf("Slack shows %+v", m.Message)
				}
				if !strings.Contains(a.raw, c.warning) {
					w.t.Errorf("%q is not in %s", c.warning, a.raw)
				}
			})
		})
	}
}

func TestEveryMistakeIsNamed(t *testing.T) {
	inABubble(t, func(w *world) {
		w.report(
			"status", "failure", "event", "party", "repository", "acme/api", "promotion_id", "a b", "tag", "a b", "digest", "x",
			"pipeline_url", "javascript:alert(1)", "delivery_id", "d1",
		).is(200, "event is", "promotion_id is left out", "tag is left out", "digest is left out", "pipeline_url is left out", `\"delivery_id\" is not a field`)
		for name, body := range map[string]string{
			"nothing": "", "a list": "[]", "a number": "1", "a form without a status": "a=%zz", "JSON without a status": "{}", "a string": `"status"`,
		} {
			if a := w.call("/", staticToken, body); a.status != 400 {
				w.t.Errorf("%s: got %d %s", name, a.status, a.raw)
			}
		}
	})
}

func TestAReportWithFieldsWithoutEnd(t *testing.T) {
	inABubble(t, func(w *world) {
		var form, object strings.Builder
		for i := range 9000 {
			fmt.Fprintf(&form, "%x=1&", i)
			fmt.Fprintf(&object, `"%x":1,`, i)
		}
		for _, body := range []string{form.String(), "{" + object.String()[:60000] + `":1}`} {
			if got := w.call("/", staticToken, body); got.status != 400 || len(got.raw) > 4000 {
				w.t.Errorf("got %d, %d bytes", got.status, len(got.raw))
			}
		}
		got := w.call("/", staticToken, "status=failure&repository=acme/api&"+form.String()[:50000])
		if got.status != 200 || len(got.raw) > 4000 {
			w.t.Errorf("got %d, %d bytes", got.status, len(got.raw))
		}
	})
}

// Over HTTP, as it is deployed: with tokens that were signed, and the texts
// that Slack gets.
func TestAsDeployed(t *testing.T) {
	t.Parallel()
	w := overHTTP(t, nil)
	if w.gitlab.DiscoveryRequests()+w.gitlab.KeyRequests()+w.google.DiscoveryRequests() != 0 {
		t.Error("somebody was asked at the start")
	}
	token := func(claims gitlabtest.Claims) string {
		t.Helper()
		if claims.Audience == "" {
			claims.Audience = audience
		}
		claims.Ref = "main"
		token, err := w.gitlab.IDToken(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := gitlabtest.Claims{Project: "acme/images/api", RefProtected: true, PipelineID: 7}
	with := func(change func(*gitlabtest.Claims)) string {
		claims := good
		change(&claims)
		return token(claims)
	}
	parts := strings.Split(token(good), ".")
	other := overHTTP(t, nil)
	foreign, err := other.gitlab.IDToken(gitlabtest.Claims{Project: "acme/images/api", Audience: audience, RefProtected: true, PipelineID: 7})
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"of another issuer":       foreign,
		"of another audience":     with(func(c *gitlabtest.Claims) { c.Audience = "https://else.example" }),
		"out of date":             with(func(c *gitlabtest.Claims) { c.Expiry = -time.Hour }),
		"with another payload":    parts[0] + "." + strings.Split(with(func(c *gitlabtest.Claims) { c.Project = "a/b" }), ".")[1] + "." + parts[2],
		"without a signature":     parts[0] + "." + parts[1] + ".",
		"that is none":            "a.b.c",
		"the shared one and more": staticToken + "x",
	} {
		t.Log(name)
		w.call("/", bad, "status=success&repository=acme/api").is(401)
	}
	// Project and pipeline are those of the id token.
	c := w.claim(key("acme/api", "1.4.0"), push("d1"), digestA)
	w.answered(c, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{URL: "https://gitlab.example/p/7"}}) // GitLab did not say which
	asked := w.gitlab.KeyRequests()
	running := w.call("/", token(good), form("status", "running", "promotion_id", c.ID)).ok()
	failed := w.call("/", token(good), form("status", "failure", "message", "no <disk>")).ok()
	if running.ts != failed.ts || running.channel != channel {
		t.Errorf("got %s, then %s", running.raw, failed.raw)
	}
	w.state(c.ID, ledger.Failed)
	messages := w.server.Messages()
	if len(messages) != 2 || messages[1].ThreadTS != messages[0].TS {
		t.Fatalf("Slack shows %+v", messages)
	}
	texts := shownIn(t, messages[0])
	if !strings.HasPrefix(messages[0].Text, ":x: ") || strings.Contains(texts, "here") {
		t.Errorf("the message is %s", texts)
	}
	for _, want := range []string{"acme/api:1.4.0", digestA[:19], "https://gitlab.example/p/7", "no &lt;disk&gt;"} {
		if !strings.Contains(texts, want) {
			t.Errorf("%q is not in %s", want, texts)
		}
	}
	if reply := messages[1]; !strings.Contains(shownIn(t, reply), "<!here>") || !strings.HasPrefix(reply.Text, ":x: ") {
		t.Errorf("the reply is %s", shownIn(t, reply))
	}
	if w.gitlab.KeyRequests() != asked {
		t.Error("GitLab was asked for its keys again")
	}
}

// shownIn returns all that Slack shows of a message.
func shownIn(t *testing.T, m slacktest.Message) string {
	t.Helper()
	var texts []string
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, each := range v {
				walk(each)
			}
		case map[string]any:
			for _, each := range v {
				walk(each)
			}
		case string:
			texts = append(texts, v)
		}
	}
	var blocks any
	if m.Blocks != nil {
		if err := json.Unmarshal(m.Blocks, &blocks); err != nil {
			t.Fatal(err)
		}
	}
	walk(blocks)
	return strings.ReplaceAll(m.Text+"\n"+strings.Join(texts, "\n"), "\u200b", "")
}

func TestTheLanguageIsASetting(t *testing.T) {
	t.Parallel()
	for _, language := range []string{"", "en", "ja"} {
		w := overHTTP(t, map[string]string{"LANGUAGE": language})
		w.report("status", "success", "repository", "acme/api").ok()
		text := w.server.Messages()[0].Text
		if japanese := strings.ContainsFunc(text, func(r rune) bool { return r >= 'ぁ' && r <= 'ヿ' }); japanese != (language == "ja") {
			t.Errorf("in %q it is %q", language, text)
		}
	}
}

func TestP6WhoMayReportForAPromotion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		test   func(w *world, id string) answer
		status int
		state  ledger.State
	}{
		{"its own pipeline", func(w *world, id string) answer {
			return w.from(pipeline{}, "status", "success", "promotion_id", id)
		}, 200, ledger.Promoted},
		{"its own pipeline, which need not say the promotion", func(w *world, _ string) answer {
			return w.from(pipeline{}, "status", "success")
		}, 200, ledger.Promoted},
		{"its own pipeline, of a project that was renamed", func(w *world, id string) answer {
			return w.from(pipeline{path: "elsewhere/renamed"}, "status", "success", "promotion_id", id)
		}, 200, ledger.Promoted},
		{"its own pipeline, with a route that names another project now", func(w *world, id string) answer {
			w.routes(strings.ReplaceAll(routes, "acme/images/api", "acme/images/moved"))
			return w.from(pipeline{}, "status", "success", "promotion_id", id)
		}, 200, ledger.Promoted},
		{"its own pipeline, without any route", func(w *world, id string) answer {
			w.routes(`{"other/*": {"gitlab": {"project": "o/p"}, "slack": {"channel": "C0OTHER"}}}`)
			a := w.from(pipeline{}, "status", "failure", "promotion_id", id)
			if a.channel != "C0DEFAULT" {
				w.t.Errorf("it is told in %q", a.channel)
			}
			return a
		}, 200, ledger.Failed},
		{"a project that took the path over", func(w *world, id string) answer {
			return w.from(pipeline{project: "66"}, "status", "success", "promotion_id", id)
		}, 403, ledger.Triggered},
		{"another pipeline of the project", func(w *world, id string) answer {
			return w.from(pipeline{id: "8"}, "status", "success", "promotion_id", id)
		}, 403, ledger.Triggered},
		{"one that was run by hand, while its own is under way", func(w *world, id string) answer {
			return w.from(pipeline{id: "8", source: "web"}, "status", "success", "promotion_id", id)
		}, 403, ledger.Triggered},
		{"one that was run by hand, after its own has failed", func(w *world, id string) answer {
			w.from(pipeline{}, "status", "failure", "promotion_id", id).ok()
			w.from(pipeline{id: "8", source: "web"}, "status", "running", "promotion_id", id).is(200)
			w.state(id, ledger.Failed)
			return w.from(pipeline{id: "8", source: "web"}, "status", "success") // it is one of its own now
		}, 200, ledger.Promoted},
		{"one that was run by hand, after its own has promoted it", func(w *world, id string) answer {
			w.from(pipeline{}, "status", "success", "promotion_id", id).ok()
			return w.from(pipeline{id: "8", source: "web"}, "status", "failure", "promotion_id", id)
		}, 403, ledger.Promoted},
		{"one that a schedule started, after its own has failed, of another project", func(w *world, id string) answer {
			w.from(pipeline{}, "status", "failure", "promotion_id", id).ok()
			return w.from(pipeline{project: "66", id: "8", source: "schedule"}, "status", "success", "promotion_id", id)
		}, 403, ledger.Failed},
		{"who has a shared token", func(w *world, id string) answer {
			return w.report("status", "success", "promotion_id", id)
		}, 200, ledger.Promoted},
		{"a shared token and another repository: the promotion's counts", func(w *world, id string) answer {
			a := w.report("status", "success", "promotion_id", id, "repository", "other/x").is(200, "the promotion is of acme/api, which counts")
			if a.channel != channel {
				w.t.Errorf("it is told in %s", a.channel)
			}
			return a
		}, 200, ledger.Promoted},
		{"a project of another repository", func(w *world, id string) answer {
			return w.from(pipeline{project: "77", path: "acme/images/quiet", id: "9"}, "status", "failure", "promotion_id", id, "repository", "acme/quiet")
		}, 403, ledger.Triggered},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				c.test(w, id).is(c.status)
				w.state(id, c.state)
			})
		})
	}
}

func TestP6AfterALostAnswer(t *testing.T) {
	inABubble(t, func(w *world) {
		m := push("d1")
		c := w.claim(key("acme/api", "1.4.0"), m, digestA)
		w.answered(c, ledger.Answer{Message: m, Reason: "gitlab_unavailable", Lost: true})
		w.from(pipeline{id: "7", source: "web"}, "status", "running", "promotion_id", c.ID).is(403)
		w.from(pipeline{project: "66", path: "evil/api"}, "status", "running", "promotion_id", c.ID).is(403)
		w.from(pipeline{id: "7", path: "Acme/Images/API"}, "status", "running", "promotion_id", c.ID).ok()                   // GitLab's own case
		w.from(pipeline{id: "8", path: "renamed/since"}, "status", "success", "promotion_id", c.ID).ok()                     // the second request's
		w.from(pipeline{project: "66", path: "acme/images/api", id: "9"}, "status", "failure", "promotion_id", c.ID).is(403) // took the path over
		w.state(c.ID, ledger.Promoted)
		w.from(pipeline{id: "7"}, "status", "failure").ok() // late, and nothing is left
		w.state(c.ID, ledger.Promoted)
		w.shows(1, 0)
	})
}

func TestOnePromotionIsOneMessage(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		first := w.report("status", "running", "promotion_id", id, "digest", digestA).ok()
		for _, status := range []string{"success", "running", "success", "failure"} { // late ones, and one twice
			if a := w.report("status", status, "promotion_id", id, "digest", digestA).ok(); a.ts != first.ts || a.channel != first.channel {
				w.t.Errorf("%s is told as %s", status, a.raw)
			}
		}
		top, _ := w.shows(1, 0)
		m := top[0]
		if m.Status != slack.Success || m.Repository != "acme/api" || m.Tag != "1.4.0" || m.Digest != digestA || m.PromotionID != id ||
			m.PipelineURL != "https://gitlab.example/p/7" || len(w.slack.calls) != 2 {
			w.t.Errorf("after %d calls Slack shows %+v", len(w.slack.calls), m)
		}
		w.state(id, ledger.Promoted)
	})
}

func TestAFailureIsRepliedToOnce(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		for _, status := range []string{"running", "failure", "failure", "running", "canceled"} {
			w.report("status", status, "promotion_id", id, "message", "no disk").ok()
		}
		top, replies := w.shows(1, 1)
		if replies[0].thread != top[0].ts || replies[0].Mention != "@here" || top[0].Status != slack.Failure || top[0].Text != "no disk" {
			w.t.Errorf("Slack shows %+v, %+v", top, replies)
		}
		w.state(id, ledger.Failed)
		w.report("status", "success", "promotion_id", id).ok() // the job was retried
		top, _ = w.shows(1, 1)
		if top[0].Status != slack.Success || top[0].Text != "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.state(id, ledger.Promoted)
	})
}

func TestTellFailures(t *testing.T) {
	inABubble(t, func(w *world) {
		good, bad := w.triggered("acme/quiet", "1", 7), w.triggered("acme/quiet", "2", 8)
		for _, status := range []string{"running", "success"} {
			w.report("status", status, "promotion_id", good).is(200)
		}
		w.report("status", "running", "promotion_id", bad).is(200)
		w.shows(0, 0)
		w.report("status", "failure", "promotion_id", bad).ok()
		top, replies := w.shows(1, 1)
		if top[0].Tag != "2" || replies[0].Mention != "" {
			w.t.Errorf("Slack shows %+v, %+v", top, replies)
		}
		w.report("status", "success", "promotion_id", bad).ok() // what was posted is kept true
		if top, _ := w.shows(1, 1); top[0].Status != slack.Success {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.ticks(10 * time.Minute)
		w.shows(1, 1)
	})
}

func TestReportsOfOneKeyUpdateOneMessage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		first, second func(w *world, pairs ...string) answer
		one           bool
	}{
		{"the same key with a shared token", keyed("k", nil), keyed("k", nil), true},
		{"other keys", keyed("k", nil), keyed("l", nil), false},
		{"no key and a shared token", keyed("", nil), keyed("", nil), false},
		{"an id token's pipeline is the key", keyed("", &pipeline{}), keyed("", &pipeline{}), true},
		{"another pipeline is another", keyed("", &pipeline{}), keyed("", &pipeline{id: "8"}), false},
		{"a key over two pipelines", keyed("k", &pipeline{}), keyed("k", &pipeline{id: "8"}), true},
		{"a project that was renamed", keyed("k", &pipeline{}), keyed("k", &pipeline{id: "8", path: "Acme/images/api"}), true},
		{"a shared token and an id token", keyed("k", nil), keyed("k", &pipeline{}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inABubble(t, func(w *world) {
				a := c.first(w, "status", "running", "version", "2.0.0").ok()
				b := c.second(w, "status", "failure", "version", "2.0.0").ok()
				if (a.ts == b.ts) != c.one {
					w.t.Errorf("they are %s and %s", a.ts, b.ts)
				}
				w.state(w.triggered("acme/api", "1.4.0", 70), ledger.Triggered)
				top, replies := w.slack.shown()
				if len(replies) != 1 || top[0].Event != slack.Release || top[0].Version != "2.0.0" || c.one && top[0].Status != slack.Failure {
					w.t.Errorf("Slack shows %+v and %d replies", top, len(replies))
				}
			})
		})
	}
}

// keyed reports of a release with a key, as a pipeline or with a shared token.
func keyed(key string, p *pipeline) func(w *world, pairs ...string) answer {
	return func(w *world, pairs ...string) answer {
		w.t.Helper()
		pairs = append(pairs, "event", "release", "repository", "acme/api")
		if key != "" {
			pairs = append(pairs, "key", key)
		}
		if p == nil {
			return w.report(pairs...)
		}
		return w.from(*p, pairs...)
	}
}

func TestKeysAreOfOneEventAndRepository(t *testing.T) {
	inABubble(t, func(w *world) {
		for _, event := range []string{"release", "deploy"} {
			for _, repository := range []string{"acme/api", "other/x"} {
				for _, status := range []string{"running", "success"} {
					w.report("status", status, "event", event, "repository", repository, "key", "k").ok()
				}
			}
		}
		top, _ := w.shows(4, 0)
		for _, m := range top {
			if m.Status != slack.Success {
				w.t.Errorf("Slack shows %+v", m)
			}
		}
	})
}

func TestAReleaseSaysNothingOfThePromotion(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.report("status", "failure", "event", "release", "version", "2.0.0", "repository", "acme/api", "promotion_id", id).ok()
		w.from(pipeline{}, "status", "failure", "event", "deploy").ok()
		w.from(pipeline{}, "status", "failure", "event", "party").ok() // whatever that is
		w.state(id, ledger.Triggered)
		w.shows(3, 3)
	})
}

// A note is not a promotion, even if a report names its ID.
func TestAReportAboutANoteChangesNothing(t *testing.T) {
	inABubble(t, func(w *world) {
		w.report("status", "failure", "event", "release", "repository", "acme/api", "key", "k").ok()
		var id string
		for p := range w.ledger.All(w.t.Context()) {
			id = p.ID
		}
		w.report("status", "success", "repository", "acme/api", "promotion_id", id).ok().is(200, "the promotion is not known")
		w.state(id, ledger.Failed)
		w.shows(2, 1)
	})
}

// A project that belongs to one route need not say the repository.
func TestReportsWithoutARepository(t *testing.T) {
	inABubble(t, func(w *world) {
		a := w.from(pipeline{project: "50", path: "other/images/x", id: "3"}, "status", "success", "event", "release", "version", "1").ok()
		top, _ := w.shows(1, 0)
		if a.channel != "C0OTHER" || top[0].Project != "other/images/x" || top[0].Repository != "" {
			w.t.Errorf("Slack shows %+v", top[0])
		}
		w.from(pipeline{project: "51", path: "acme/images/lib"}, "status", "success", "event", "release").is(400, "belongs to 2 routes")
	})
}

func TestReportsAtOnceMakeOneMessage(t *testing.T) {
	inABubble(t, func(w *world) {
		w.slack.takes = 300 * time.Millisecond
		id := w.triggered("acme/api", "1.4.0", 7)
		var running sync.WaitGroup
		for i := range 8 {
			running.Go(func() {
				a := w.report("status", []string{"running", "success"}[i%2], "promotion_id", id)
				if a.status != 200 && a.status != 202 {
					w.t.Errorf("got %d %s", a.status, a.raw)
				}
			})
		}
		running.Wait()
		w.ticks(3 * time.Minute)
		top, _ := w.shows(1, 0)
		if p := w.get(id); top[0].Status != slack.Success || p.Behind() {
			w.t.Errorf("Slack shows %+v of %+v", top[0], p)
		}
	})
}

func TestWhatAPipelineFoundToDo(t *testing.T) {
	t.Parallel()
	for status, c := range map[string]struct {
		state ledger.State
		slack slack.Status
	}{
		"skipped": {ledger.Skipped, slack.Skipped}, "superseded": {ledger.Superseded, slack.Superseded},
		"success": {ledger.Promoted, slack.Success}, "canceled": {ledger.Failed, slack.Failure},
	} {
		t.Run(status, func(t *testing.T) {
			inABubble(t, func(w *world) {
				id := w.triggered("acme/api", "1.4.0", 7)
				w.report("status", status, "promotion_id", id, "message", "found it so").ok()
				w.state(id, c.state)
				top, _ := w.slack.shown()
				if len(top) != 1 || top[0].Status != c.slack || top[0].Text != "found it so" {
					w.t.Errorf("Slack shows %+v", top)
				}
			})
		})
	}
}

func TestTheLogLineOfAReport(t *testing.T) {
	inABubble(t, func(w *world) {
		id := w.triggered("acme/api", "1.4.0", 7)
		w.from(pipeline{}, "status", "success", "promotion_id", id, "repository", "acme/api").ok()
		lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
		var line map[string]any
		if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 1 {
			w.t.Fatalf("logged is %q", lines)
		}
		for key, want := range map[string]any{
			"severity": "INFO", "message": "report recorded", "promotion_id": id, "repository": "acme/api", "state": "promoted",
			"project": "acme/images/api", "outcome": "shown", "status": 200.0,
		} {
			if line[key] != want {
				w.t.Errorf("%s is %v, want %v", key, line[key], want)
			}
		}
	})
}

func TestEverySettingIsChecked(t *testing.T) {
	t.Parallel()
	fails := func(settings map[string]string, wants ...string) {
		t.Helper()
		_, err := notify.FromEnv(t.Context(), func(name string) string { return settings[name] })
		for _, want := range wants {
			if err == nil || !strings.Contains("\n"+err.Error(), "\n"+want) {
				t.Errorf("%q is not in\n%v", want, err)
			}
		}
		if strings.Contains(fmt.Sprint(err), "canary") {
			t.Errorf("a secret shows in %v", err)
		}
	}
	fails(nil, "ROUTES: is required", "SLACK_BOT_TOKEN: is required", "OIDC_AUDIENCE: or NOTIFY_TOKENS is required",
		"DEFAULT_CHANNEL: is required", "LEDGER: is required")
	fails(map[string]string{
		"ROUTES": "[]", "SLACK_API_URL": "slack", "LANGUAGE": "fr", "NOTIFY_TOKENS": "canary", "OIDC_ISSUER": "gitlab", "LEDGER": "redis:",
		"PUSH_ISSUER": "google", "PUSH_AUDIENCE": "https://x", "SILENT_AFTER": "soon",
	}, "ROUTES: ", "SLACK_BOT_TOKEN: is required", "SLACK_API_URL: ", "LANGUAGE: ", "NOTIFY_TOKENS: line 1", "OIDC_ISSUER: ", "LEDGER: ",
		"PUSH_ISSUER: ", "PUSH_SERVICE_ACCOUNT: is required", "SILENT_AFTER: ")
	good := map[string]string{
		"ROUTES": routes, "SLACK_BOT_TOKEN": "canary", "NOTIFY_TOKENS": staticToken, "DEFAULT_CHANNEL": "C1", "LEDGER": "memory:notify-settings",
	}
	if _, err := notify.FromEnv(t.Context(), func(name string) string { return good[name] }); err != nil {
		t.Errorf("good settings: %v", err)
	}
	for name, change := range map[string][2]string{
		"an account without an audience": {"PUSH_SERVICE_ACCOUNT", "a@b"}, "silence of less than a minute": {"SILENT_AFTER", "59s"},
		"silence of no time": {"SILENT_AFTER", "-1h"}, "a short token": {"NOTIFY_TOKENS", "canary"}, "two ledgers": {"LEDGER", "memory"},
		"two channels": {"DEFAULT_CHANNEL", "C1 C2"}, "a channel that is a sentence": {"DEFAULT_CHANNEL", strings.Repeat("C", 81)},
	} {
		_, err := notify.FromEnv(t.Context(), func(setting string) string {
			if setting == change[0] {
				return change[1]
			}
			return good[setting]
		})
		if err == nil {
			t.Errorf("%s: the settings were taken", name)
		}
	}
}
