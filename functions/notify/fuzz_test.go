package notify

import (
	"net/url"
	"testing"
)

func FuzzParseReport(f *testing.F) {
	f.Add([]byte(`{"status":"success","repository":"acme/api","tag":"1.4.0"}`))
	f.Add([]byte("status=running&delivery_id=d1&digest=sha256%3A00"))
	f.Add([]byte(`{"status":"failure","message":"\u0000<!channel>","pipeline_url":"https://gitlab.example/p/1"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseReport(body)
		if err != nil {
			return
		}
		// What was taken as whatever it was is taken as a form, and is the same.
		again, err := parseReport([]byte(url.Values{
			"status": {r.status}, "event": {r.event}, "repository": {r.repository}, "delivery_id": {r.deliveryID}, "ts": {r.ts},
			"tag": {r.tag}, "digest": {r.digest}, "version": {r.version}, "message": {r.message}, "pipeline_url": {r.pipelineURL},
		}.Encode()))
		if err != nil || again != r {
			t.Errorf("%+v came back as %+v, %v", r, again, err)
		}
		if states[r.status] == "" {
			t.Errorf("status %q was taken", r.status)
		}
	})
}
