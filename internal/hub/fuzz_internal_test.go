package hub

import (
	"encoding/base64"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
)

func base64URL(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// checkRefusal checks what a decoder says of an answer that it cannot read.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	e, ok := err.(*Error)
	if !ok || !e.Temporary() || strings.Contains(err.Error(), "canary") {
		t.Fatalf("got %v", err)
	}
}

func FuzzPushes(f *testing.F) {
	for _, seed := range []string{
		`{"logs":[{"account":"acme","action":"repo.tag.push","name":"acme/api","actor":"canary","data":{"digest":"sha256:c1ae9c435032a276f80220c7d9b40f76266bbe79243d34f9cda30b76fe114dfa","tag":"latest"},"timestamp":"2021-02-19T01:34:35Z","action_description":"pushed"}]}`,
		`{"logs":[{"action":"repo.create","name":"api","data":null,"timestamp":7},{"name":"api","data":{"tag":"v1"},"timestamp":"2021-02-19T01:34:35.123456+02:00"}]}`,
		`{"logs":[{"name":"api","data":"canary"}]}`, `{"logs":["canary"]}`, `{"logs":null}`, `{"logs":{}}`, `{}`, ` { } `, `{"message":"canary"}`, `[]`, `canary`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		pushes, events, err := decodePushes(body, "acme")
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if len(pushes) > events {
			t.Errorf("%d pushes of %d events", len(pushes), events)
		}
		for _, p := range pushes {
			if dockerhub.CheckRepository(p.Repository) != nil || dockerhub.CheckTag(p.Tag) != nil || p.PushedAt.Unix() <= 0 ||
				p.Digest != "" && dockerhub.CheckDigest(p.Digest) != nil || len(p.Actor) > maxActor {
				t.Errorf("got %+v", p)
			}
		}
	})
}

func FuzzTags(f *testing.F) {
	for _, seed := range []string{
		`{"count":1,"next":null,"previous":null,"results":[{"creator":7,"images":[{"architecture":"amd64","variant":null,"digest":"sha256:6f8f94d4a2d550e910b254c811d2df445df1903f481ca7d4e5cf0b838784ce4b","status":"inactive"}],"last_updated":"2026-03-23T09:48:42.07709Z","name":"v4.4","v2":true,"tag_status":"stale","tag_last_pushed":"2026-03-23T09:48:42.07709Z","media_type":"application/vnd.docker.container.image.v1+json","content_type":"image","digest":"sha256:6f8f94d4a2d550e910b254c811d2df445df1903f481ca7d4e5cf0b838784ce4b"}]}`,
		`{"next":"https://canary.example/","results":[{"name":"v1","last_updated":"2026-03-23T09:48:42Z","tag_last_pushed":null,"images":{"digest":"canary"}}]}`,
		`{"next":7,"results":[{"name":"v1","last_updated":null,"tag_last_pushed":"2026-03-23T09:48:42Z","digest":"canary","images":null}]}`,
		`{"results":[{"name":"never pushed","last_updated":null}]}`, `{"results":null}`, `{"results":[7]}`, `{"results":[]}`, `{"message":"canary"}`, `null`, "",
		`{"name":"v1","last_updated":"2026-03-23T09:48:42Z","images":7,"media_type":"application/vnd.oci.image.index.v1+json"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if isObject(body) {
			if tag, err := decodeTag(body); err != nil {
				checkRefusal(t, err)
			} else if dockerhub.CheckTag(tag.Name) != nil || tag.PushedAt.Unix() <= 0 {
				t.Errorf("got %+v", tag)
			}
		}
		tags, _, err := decodeTags(body)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		for _, tag := range tags {
			if dockerhub.CheckTag(tag.Name) != nil || tag.PushedAt.Unix() <= 0 || tag.updatedAt.Unix() <= 0 ||
				tag.Digest != "" && dockerhub.CheckDigest(tag.Digest) != nil || len(tag.MediaType) > maxType {
				t.Errorf("got %+v", tag)
			}
			for _, d := range tag.Images {
				if dockerhub.CheckDigest(d) != nil {
					t.Errorf("got the digest %q", d)
				}
			}
		}
	})
}

func FuzzRepositories(f *testing.F) {
	for _, seed := range []string{
		`{"count":98,"next":"https://hub.docker.com/v2/repositories/acme?page=2","results":[{"name":"api","namespace":"acme","repository_type":"image","status":1,"is_private":false,"last_updated":"2025-03-04T04:01:22.754331Z"}]}`,
		`{"results":[{"name":"canary/api"}]}`, `{"results":[{"name":"../x"},{"name":"api","last_updated":7}]}`, `{"results":[]}`, `{}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		repositories, _, err := decodeRepositories(body, "acme")
		if err != nil {
			checkRefusal(t, err)
			return
		}
		for _, r := range repositories {
			if dockerhub.CheckRepository(r.Name) != nil || !strings.HasPrefix(r.Name, "acme/") {
				t.Errorf("got %+v", r)
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"e30.` + base64URL(`{"iat":1769818788,"exp":1769819388}`) + `.c2ln"}`,
		`{"access_token":"e30.` + base64URL(`{"exp":-1e400}`) + `.x"}`, `{"access_token":"opaque"}`, `{"access_token":"a\nb"}`, `{"access_token":{}}`, `{"token":"canary"}`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		token, err := decodeToken(body)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if token == "" || len(token) > maxToken || env.CheckToken(token) != nil {
			t.Errorf("got %q", token)
		}
		if life := lifeOf(token, time.Unix(1_800_000_000, 0)); life < 0 || life > maxLife {
			t.Errorf("it lives %v", life)
		}
	})
}

func FuzzCursor(f *testing.F) {
	beginning := position{Of: "tags acme/api", Page: 1, Since: time.Unix(1_800_000_000, 0).UTC()}
	second := beginning
	second.Last, second.Mixed = beginning.Since.Add(time.Hour), true
	for _, seed := range []string{"", "canary", second.next(), base64URL(`{"of":"tags acme/api","page":-1}`), base64URL(`{"of":"tags acme/web","page":2}`), base64URL(`{"of":"tags acme/api","page":1e9}`)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		p := readPosition(cursor, beginning)
		if p.Of != beginning.Of || p.Page < 1 || p.Page > maxPages+1 || p.Page == 1 && p != beginning {
			t.Errorf("got %+v", p)
		}
		if p.Page <= maxPages {
			again := readPosition(p.next(), beginning)
			if p.Page++; !again.Since.Equal(p.Since) || !again.Last.Equal(p.Last) || again.Page != p.Page || again.Mixed != p.Mixed {
				t.Errorf("%+v becomes %+v", p, again)
			}
		}
	})
}

func FuzzLimit(f *testing.F) {
	for _, seed := range []string{"", "0", "30", "1800000040", "1800000040.5", "-5", "NaN", "Inf", "1e308", "Wed, 21 Oct 2026 07:28:00 GMT", " 7 "} {
		f.Add(seed, seed)
	}
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, first, second string) {
		for _, d := range []time.Duration{wait(first, now), wait(second, now)} {
			if d < 0 || d > time.Hour {
				t.Errorf("wait %v", d)
			}
		}
		h := http.Header{"X-Retry-After": {first}, "X-Ratelimit-Reset": {second}}
		if d := limitEnds(h, now); d <= 0 || d > time.Hour || math.IsNaN(d.Seconds()) {
			t.Errorf("a limit ends in %v", d)
		}
	})
}
