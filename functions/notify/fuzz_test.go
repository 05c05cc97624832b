package notify

import (
	"net/url"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzParseReport(f *testing.F) {
	f.Add([]byte(`{"status":"success","repository":"acme/api","tag":"1.4.0"}`))
	f.Add([]byte("\ufeff{\"status\":\"failed\",\"repository\":\"acme/api\",\"version\":12}"))
	f.Add([]byte("status=failure&repository=acme/api&message=caf\xe9 at 73% of a & b; c"))
	f.Add([]byte("status=running&promotion_id=0123456789abcdef0123456789abcdef&digest=sha256%3A00&key=a%00b"))
	f.Add([]byte(`{"status":"failure","message":"\u0000<!channel>","pipeline_url":"https://gitlab.example/p/1"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseReport(body)
		if err != nil {
			if !utf8.ValidString(err.Error()) {
				t.Errorf("the error is no UTF-8: %q", err)
			}
			return
		}
		if states[r.status] == "" {
			t.Errorf("status %q was taken", r.status)
		}
		for _, text := range []string{r.repository, r.promotionID, r.key, r.tag, r.digest, r.version, r.message, r.pipelineURL, strings.Join(r.warnings, "")} {
			if !utf8.ValidString(text) {
				t.Errorf("%q is no UTF-8", text)
			}
		}
		if n := utf8.RuneCountInString(r.message); n > maxMessage || len(r.warnings) > maxWarnings {
			t.Errorf("%d characters, %d warnings", n, len(r.warnings))
		}
		// Everything that is accepted is also accepted as a form, with the same
		// result.
		again, err := parseReport([]byte(url.Values{
			"status": {r.status}, "event": {r.event}, "repository": {r.repository}, "promotion_id": {r.promotionID}, "key": {r.key},
			"tag": {r.tag}, "digest": {r.digest}, "version": {r.version}, "message": {r.message}, "pipeline_url": {r.pipelineURL},
		}.Encode()))
		again.warnings, again.unknown, r.warnings = nil, r.unknown, nil
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
	})
}
