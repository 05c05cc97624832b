// Package gitlab creates pipelines in GitLab by trigger token, and says of
// each refusal whether it is worth another attempt. No other package knows
// which client library is used.
package gitlab

//lint:file-ignore SA1019 the library is deprecated, and kept: see docs/decisions.md

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	api "github.com/xanzy/go-gitlab"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const (
	// timeout spans one call. GitLab creates a pipeline before it answers, and
	// for a large .gitlab-ci.yml that takes seconds.
	timeout = 30 * time.Second
	// maxURL bounds the address of a pipeline that is passed on, in bytes.
	maxURL = 2000
)

// Client creates pipelines in one GitLab. It is safe for concurrent use.
type Client struct{ api *api.Client }

// New returns a Client of the GitLab at baseURL, like https://gitlab.com or
// https://example.com/gitlab. It asks nobody anything yet.
func New(baseURL string) (*Client, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		// The value stays out of the error: a URL may hold a password.
		return nil, errors.New("must be a URL that starts with https:// or http://")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, errors.New("must be a plain base URL, without user, query or fragment")
	}
	// One call is one request: who calls does the waiting, so the library must
	// neither repeat requests nor ask for the rate limit first.
	client, err := api.NewClient("",
		api.WithBaseURL(baseURL),
		api.WithHTTPClient(httpclient.New(timeout)),
		api.WithoutRetries(),
		api.WithCustomRetryMax(0),
		api.WithCustomLimiter(unlimited{}),
	)
	if err != nil {
		return nil, fmt.Errorf("make GitLab client: %w", err)
	}
	client.UserAgent = "hubrelay"
	return &Client{client}, nil
}

// unlimited is a limiter that waits for nothing.
type unlimited struct{}

func (unlimited) Wait(context.Context) error { return nil }

// Request asks for a pipeline.
type Request struct {
	Project   string            // numeric id, or path
	Ref       string            // branch or tag
	Token     env.Secret        // pipeline trigger token
	Inputs    map[string]string // pipeline inputs, declared by the project
	Variables map[string]string // pipeline variables
}

// Pipeline is what was created.
type Pipeline struct {
	ID  int    // 0 where GitLab's answer does not say
	URL string // of its page; "" where GitLab's answer does not say
}

// body is what the endpoint reads. The library's own options know no inputs.
type body struct {
	Token     string            `json:"token"`
	Ref       string            `json:"ref"`
	Variables map[string]string `json:"variables,omitempty"`
	Inputs    map[string]string `json:"inputs,omitempty"`
}

// CreatePipeline creates a pipeline by exactly one HTTP request. A refusal, or
// no answer, is an *Error. The token is in no error.
func (c *Client) CreatePipeline(ctx context.Context, r Request) (Pipeline, error) {
	p, err := c.create(ctx, r)
	if err != nil {
		return Pipeline{}, fmt.Errorf("create pipeline for %s: %w", r.Project, err)
	}
	return p, nil
}

func (c *Client) create(ctx context.Context, r Request) (Pipeline, error) {
	got, err := c.do(ctx, http.MethodPost, "projects/"+api.PathEscape(r.Project)+"/trigger/pipeline",
		body{r.Token.Reveal(), r.Ref, r.Variables, r.Inputs})
	if err != nil {
		return Pipeline{}, err
	}
	return got.pipeline(r)
}

// do makes one request. Where there is no answer the error is an *Error.
func (c *Client) do(ctx context.Context, method, path string, body any, options ...api.RequestOptionFunc) (*answer, error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := c.api.NewRequest(method, path, body, append(options, api.WithContext(ctx)))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	// The library's own reading of an answer takes any 2xx for a success, and
	// drops the body of a 404 and the failure to read one.
	var got *answer
	req.SetResponseHandler(func(res *http.Response) error {
		data, err := io.ReadAll(res.Body)
		got = &answer{res.StatusCode, res.Header, data, err}
		return nil
	})
	_, err = c.api.Do(req, nil)
	if got == nil {
		return nil, unanswered(err, connected.Load())
	}
	return got, nil
}

// PipelineName is what a pipeline of a delivery calls itself, by workflow:name
// in the project's .gitlab-ci.yml. It is how one is found again.
func PipelineName(deliveryID string) string { return "hubrelay " + deliveryID }

// Search asks for a pipeline that was created by trigger.
type Search struct {
	Project string
	Token   env.Secret // access token with the scope read_api
	Name    string
}

// FindPipeline looks for the newest pipeline of a name, by exactly one HTTP
// request. A refusal, or no answer, is an *Error. The token is in no error.
func (c *Client) FindPipeline(ctx context.Context, s Search) (p Pipeline, found bool, err error) {
	p, found, err = c.find(ctx, s)
	if err != nil {
		return Pipeline{}, false, fmt.Errorf("find pipeline in %s: %w", s.Project, err)
	}
	return p, found, nil
}

func (c *Client) find(ctx context.Context, s Search) (Pipeline, bool, error) {
	trigger := "trigger"
	got, err := c.do(ctx, http.MethodGet, "projects/"+api.PathEscape(s.Project)+"/pipelines",
		&api.ListProjectPipelinesOptions{Name: &s.Name, Source: &trigger}, api.WithToken(api.PrivateToken, s.Token.Reveal()))
	if err != nil {
		return Pipeline{}, false, err
	}
	if got.status != http.StatusOK {
		return Pipeline{}, false, got.notFound(s)
	}
	var list []struct {
		ID     int    `json:"id"`
		Name   string `json:"name"`
		WebURL string `json:"web_url"`
	}
	if got.err == nil {
		got.err = json.Unmarshal(got.body, &list)
	}
	if got.err != nil {
		return Pipeline{}, false, &Error{Status: got.status, Reason: Unavailable, Cause: fmt.Errorf("read the answer: %w", httpclient.Unanswered(got.err))}
	}
	for _, p := range list {
		if p.Name == s.Name { // a GitLab that knows no names lists all
			return Pipeline{ID: p.ID, URL: pageURL(p.WebURL, s.Token)}, true, nil
		}
	}
	return Pipeline{}, false, nil
}

// answer is GitLab's answer, and what went wrong while it was read.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// pipeline reads the answer to r. 201 is a success whatever the body: the
// pipeline exists, and an error would create a second one.
func (a answer) pipeline(r Request) (Pipeline, error) {
	if a.status != http.StatusCreated {
		return Pipeline{}, a.refusal(r)
	}
	var p struct {
		ID     int    `json:"id"`
		WebURL string `json:"web_url"`
	}
	if a.err == nil {
		_ = json.Unmarshal(a.body, &p)
	}
	return Pipeline{ID: p.ID, URL: pageURL(p.WebURL, r.Token)}, nil
}

// pageURL returns raw if it is an address that can be shown to people.
func pageURL(raw string, token env.Secret) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || len(raw) > maxURL || redact(raw, token) != raw {
		return ""
	}
	if !strings.EqualFold(u.Scheme, "https") && !strings.EqualFold(u.Scheme, "http") {
		return ""
	}
	return raw
}
