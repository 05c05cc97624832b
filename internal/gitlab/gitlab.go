// Package gitlab creates pipelines in GitLab by trigger token, and says for
// each refusal whether a retry may help. Only this package uses GitLab's client
// library.
package gitlab

//lint:file-ignore SA1019 the library is deprecated, and kept: see docs/decisions.md

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	api "github.com/xanzy/go-gitlab"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// Timeout bounds one call. GitLab creates the pipeline before it answers, and
// with a large .gitlab-ci.yml that takes seconds.
const Timeout = 30 * time.Second

// maxURL bounds the address of a pipeline that is passed on, in bytes.
const maxURL = 2000

// Client creates pipelines in one GitLab. It is safe for concurrent use.
type Client struct {
	api  *api.Client
	host string // of the base URL, with its port
}

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
	// One call is one request: the caller decides about retries. So the library
	// must neither repeat requests nor ask for the rate limit first.
	client, err := api.NewClient("",
		api.WithBaseURL(baseURL),
		api.WithHTTPClient(httpclient.New(Timeout)),
		api.WithoutRetries(),
		api.WithCustomRetryMax(0),
		api.WithCustomLimiter(unlimited{}),
	)
	if err != nil {
		return nil, fmt.Errorf("make GitLab client: %w", err)
	}
	client.UserAgent = "hubrelay"
	return &Client{client, u.Host}, nil
}

// unlimited is a limiter that never waits.
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
	ID        int64  // 0 if GitLab's answer does not say
	ProjectID int64  // 0 if GitLab's answer does not say
	URL       string // of its page; "" if GitLab's answer does not say
}

// body is the request's body. The library's own options have no inputs.
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
	if got.status != http.StatusCreated {
		return Pipeline{}, got.refusal(r, c.host)
	}
	return got.pipeline(r.Token), nil
}

// answer is GitLab's answer, and the error that occurred while it was read.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// pipeline reads a 201, which is a success whatever the body: the pipeline
// exists, and an error would create a second one.
func (a answer) pipeline(token env.Secret) Pipeline {
	var p struct {
		ID        int64  `json:"id"`
		ProjectID int64  `json:"project_id"`
		WebURL    string `json:"web_url"`
	}
	if a.err == nil {
		_ = json.Unmarshal(a.body, &p) // fields of another type stay empty
	}
	return Pipeline{ID: max(0, p.ID), ProjectID: max(0, p.ProjectID), URL: pageURL(p.WebURL, token)}
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
