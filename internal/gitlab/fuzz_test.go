package gitlab

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/getto-systems/hubrelay/internal/env"
)

func FuzzAnswer(f *testing.F) {
	const canary = "glptt-canary"
	for _, seed := range []struct {
		status      int
		contentType string
		body        string
	}{
		{201, "application/json", `{"id":7,"web_url":"https://gitlab.example/p/7"}`},
		{201, "text/html", "<html>"},
		{201, "application/json", `{"web_url":"https://glptt-canary@gitlab.example/"}`},
		{400, "application/json", `{"message":{"base":["Too many pipelines created in the last minute. Try again later."]}}`},
		{400, "application/json", `{"message":"Reference not found"}`},
		{400, "application/json", `{"error":"inputs is invalid"}`},
		{400, "application/json", `{"message":{"glptt-canary":[["glptt-canary"]]}}`},
		{404, "application/json", `{"message":"404 Not Found"}`},
		{422, "application/json", `{"message":{"base":["unknown input arguments: a"],"x":{"y":[1,true,null]}}}`},
		{429, "text/plain", "Retry later glptt-canary\n"},
		{500, "text/html; charset=utf-8", "<h1>500 glptt-canary</h1>"},
		{302, "", ""},
		{301, "https://glptt-canary/x", ""},
		{403, "text/html", "<html><script>glptt-canary</script><p>Denied, glptt&#45;canary"},
		{400, "application/json", `{"message":{"base":["You do not have sufficient permission to run a pipeline on 'main'. <a href=https://docs.example>Learn more</a>"]}}`},
		{422, "application/json", `{"message":"job_activity_limit_exceeded"}`},
		{503, "application/json", `{"message":"You cannot perform write operations on a read-only instance"}`},
	} {
		f.Add(seed.status, seed.contentType, []byte(seed.body))
	}
	temporary := []string{Unavailable, RateLimited, Capacity, ReferenceNotFound, Forbidden}
	request := Request{Project: "acme/api", Ref: "main", Token: env.NewSecret(canary)}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		header := http.Header{"Content-Type": {contentType}, "Retry-After": {contentType}, "Ratelimit-Reset": {contentType}, "Location": {contentType}}
		got := answer{status: status, header: header, body: body}
		if p := got.pipeline(request.Token); strings.Contains(fmt.Sprintf("%+v", p), canary) || p.ID < 0 || p.ProjectID < 0 {
			t.Errorf("got %+v", p)
		}
		refusal := got.refusal(request, "gitlab.example")
		if status >= 200 && status <= 999 && refusal.Hint == "" || strings.Contains(refusal.Hint, "{") || refusal.Status != status || refusal.Reason == "" {
			t.Fatalf("%d: got %#v", status, refusal)
		}
		if refusal.Temporary() != (slices.Contains(temporary, refusal.Reason) || refusal.Unrecognized) || refusal.Lost && !refusal.Temporary() {
			t.Errorf("%s: temporary %v, lost %v", refusal.Reason, refusal.Temporary(), refusal.Lost)
		}
		if refusal.Temporary() && slices.Contains([]int{302, 404, 405}, status) || !refusal.Temporary() && status >= 500 {
			t.Errorf("%d: temporary %v", status, refusal.Temporary())
		}
		if refusal.Unrecognized && status != 400 || refusal.Lost != (status == 408 || status >= 500) {
			t.Errorf("%d: unrecognized %v, lost %v", status, refusal.Unrecognized, refusal.Lost)
		}
		if text := fmt.Sprintf("%v %+v", refusal, *refusal); strings.Contains(text, canary) {
			t.Errorf("the token shows: %s", text)
		}
		if n := utf8.RuneCountInString(refusal.Message); n > maxMessage || !utf8.ValidString(refusal.Message) || strings.ContainsAny(refusal.Message, "\r\n\x00") {
			t.Errorf("message of %d runes: %q", n, refusal.Message)
		}
		if refusal.RetryAfter < 0 || refusal.RetryAfter > time.Hour {
			t.Errorf("wait %v", refusal.RetryAfter)
		}
	})
}

func FuzzJobs(f *testing.F) {
	const canary = "glpat-canary"
	for _, seed := range []string{
		`[]`, `null`, `{}`, `[null]`, "\xff",
		`[{"id":7,"name":"hubrelay-promote","status":"failed","finished_at":"2026-01-02T03:04:05.678Z","web_url":"https://gitlab.example/j/7"}]`,
		`[{"id":-1,"name":"hubrelay-promote","status":"glpat-canary","web_url":"https://glpat-canary@gitlab.example/"}]`,
		`[{"id":1e3,"name":"hubrelay-promote"}]`, `[{"name":"hubrelay-promote","finished_at":"glpat-canary"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		j, found, err := decodeJobs(body, env.NewSecret(canary))
		if err != nil && (found || strings.Contains(err.Error(), canary)) || !found && j != (Job{}) {
			t.Errorf("got %+v, %v, %v", j, found, err)
		}
		if strings.Contains(j.URL, canary) {
			t.Errorf("the token shows: %s", j.URL)
		}
	})
}
