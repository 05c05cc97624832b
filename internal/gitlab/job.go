package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	api "github.com/xanzy/go-gitlab"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// PromotionJob is the job of templates/promote.yml that promotes.
const PromotionJob = "hubrelay-promote"

// maxJobs is how many jobs of a pipeline are read, the newest first: the most
// that GitLab returns in a page.
const maxJobs = 100

// JobQuery asks for the promotion job of a pipeline.
type JobQuery struct {
	ProjectID, PipelineID string
	Token                 env.Secret // an access token with the scope read_api
}

// Job is one of a pipeline.
type Job struct {
	// Status is GitLab's: created, waiting_for_resource, preparing, pending,
	// running, success, failed, canceling, canceled, skipped, manual or scheduled.
	Status     string
	FinishedAt time.Time // zero if it has not
	URL        string    // of its page; "" if GitLab's answer does not say
}

// FindJob returns the promotion job of a pipeline, the newest if it was
// retried, by exactly one HTTP request. A refusal, or no answer, is an *Error.
// The token is in no error.
func (c *Client) FindJob(ctx context.Context, q JobQuery) (j Job, found bool, err error) {
	j, found, err = c.findJob(ctx, q)
	if err != nil {
		return Job{}, false, fmt.Errorf("ask for the jobs of pipeline %s: %w", q.PipelineID, err)
	}
	return j, found, nil
}

func (c *Client) findJob(ctx context.Context, q JobQuery) (Job, bool, error) {
	got, err := c.do(ctx, http.MethodGet, "projects/"+api.PathEscape(q.ProjectID)+"/pipelines/"+api.PathEscape(q.PipelineID)+"/jobs",
		&api.ListOptions{PerPage: maxJobs}, api.WithToken(api.PrivateToken, q.Token.Reveal()))
	if err != nil {
		return Job{}, false, err
	}
	if got.status != http.StatusOK {
		return Job{}, false, got.unasked(q)
	}
	if got.err == nil {
		var (
			job   Job
			found bool
		)
		if job, found, got.err = decodeJobs(got.body, q.Token); got.err == nil {
			return job, found, nil
		}
	}
	return Job{}, false, &Error{Status: got.status, Reason: Unavailable, Cause: fmt.Errorf("read the answer: %w", httpclient.Unanswered(got.err))}
}

// decodeJobs finds the newest promotion job in a page of jobs.
func decodeJobs(body []byte, token env.Secret) (job Job, found bool, err error) {
	var list []struct {
		ID         int64     `json:"id"`
		Name       string    `json:"name"`
		Status     string    `json:"status"`
		FinishedAt time.Time `json:"finished_at"`
		WebURL     string    `json:"web_url"`
	}
	if json.Unmarshal(body, &list) != nil { // its error may contain a part of the answer
		return Job{}, false, errors.New("is no list of jobs")
	}
	var newest int64
	for _, j := range list {
		if j.Name == PromotionJob && (!found || j.ID >= newest) {
			newest, found = j.ID, true
			job = Job{Status: j.Status, FinishedAt: j.FinishedAt, URL: pageURL(j.WebURL, token)}
		}
	}
	if !found && (list == nil || len(list) >= maxJobs) { // null has no jobs, and a full page may not have all of them
		return Job{}, false, errors.New("is not all of the jobs")
	}
	return job, found, nil
}

// unasked makes an Error of an answer other than 200.
func (a answer) unasked(q JobQuery) *Error {
	e := &Error{Status: a.status, Reason: Unavailable, Message: shorten(a.said(q.Token).text), RetryAfter: a.retryAfter()}
	switch a.status {
	case http.StatusTooManyRequests:
		e.Reason = RateLimited
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		e.Reason = Unauthorized
		e.Hint = "Set an access token of the project, or of its group, with the scope read_api in GITLAB_API_TOKENS, or none."
	}
	return e
}

// do makes one request. If there is no answer the error is an *Error.
func (c *Client) do(ctx context.Context, method, path string, body any, options ...api.RequestOptionFunc) (*answer, error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := c.api.NewRequest(method, path, body, append(options, api.WithContext(ctx)))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	// The library takes any 2xx for a success, drops the body of a 404, and
	// ignores an error while reading one.
	var got *answer
	req.SetResponseHandler(func(res *http.Response) error {
		data, err := io.ReadAll(res.Body)
		got = &answer{res.StatusCode, res.Header, data, err}
		return nil
	})
	_, err = c.api.Do(req, nil)
	if got == nil {
		return nil, unanswered(err, connected.Load(), c.host)
	}
	return got, nil
}
