package gitlab

import (
	"errors"
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
	} {
		f.Add(seed.status, seed.contentType, []byte(seed.body))
	}
	temporary := []string{Unavailable, RateLimited, ReferenceNotFound, Forbidden}
	request := Request{Project: "acme/api", Ref: "main", Token: env.NewSecret(canary)}
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		header := http.Header{"Content-Type": {contentType}, "Retry-After": {contentType}, "Ratelimit-Reset": {contentType}}
		p, err := answer{status: status, header: header, body: body}.pipeline(request)
		if (err == nil) != (status == http.StatusCreated) {
			t.Fatalf("%d: got %+v, %v", status, p, err)
		}
		if strings.Contains(fmt.Sprintf("%+v", p), canary) {
			t.Errorf("the token shows: %+v", p)
		}
		if err == nil {
			return
		}
		var refusal *Error
		if !errors.As(err, &refusal) || refusal.Status != status || refusal.Reason == "" {
			t.Fatalf("%d: got %#v", status, err)
		}
		if refusal.Temporary() != slices.Contains(temporary, refusal.Reason) || refusal.Ambiguous && !refusal.Temporary() {
			t.Errorf("%s: temporary %v, ambiguous %v", refusal.Reason, refusal.Temporary(), refusal.Ambiguous)
		}
		if refusal.Temporary() && slices.Contains([]int{302, 401, 404, 422}, status) || !refusal.Temporary() && status >= 500 {
			t.Errorf("%d: temporary %v", status, refusal.Temporary())
		}
		if text := fmt.Sprintf("%v %+v", err, *refusal); strings.Contains(text, canary) {
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
