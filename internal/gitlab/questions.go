package gitlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	api "github.com/xanzy/go-gitlab"

	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

// The functions below ask how GitLab and a project are set up. Each sends one
// GET request with an access token that has the scope read_api, and changes
// nothing. A refusal, or no answer, is an *Error with the Status of the answer;
// the token is in no error.

// Host is the host of the base URL, with its port.
func (c *Client) Host() string { return c.host }

// Version returns GitLab's version, such as 18.5.0-ee. Without a token GitLab
// does not return it: the error then has the status 401. Its Reason is
// Unauthorized only if GitLab's API has answered.
func (c *Client) Version(ctx context.Context, token env.Secret) (string, error) {
	var v struct {
		Version string `json:"version"`
	}
	err := c.question(ctx, "version", nil, token, &v)
	return v.Version, err
}

// AccessToken describes an access token of a user, a project or a group.
type AccessToken struct {
	Active    bool     `json:"active"`
	Scopes    []string `json:"scopes"`
	ExpiresAt string   `json:"expires_at"` // a day such as 2027-01-31; "" means never
}

// Expires returns when the token expires, zero if it does not.
func (t AccessToken) Expires() time.Time {
	day, _ := time.Parse(time.DateOnly, t.ExpiresAt)
	return day
}

// Self describes the token itself.
func (c *Client) Self(ctx context.Context, token env.Secret) (AccessToken, error) {
	var t AccessToken
	err := c.question(ctx, "personal_access_tokens/self", nil, token, &t)
	return t, err
}

// Project has the settings of a project that matter here. A field that GitLab
// does not show to the token is "".
type Project struct {
	ID           int64  `json:"id"`
	Path         string `json:"path_with_namespace"`
	Archived     bool   `json:"archived"`
	Empty        bool   `json:"empty_repo"`
	BuildsAccess string `json:"builds_access_level"` // enabled, private or disabled
	ConfigPath   string `json:"ci_config_path"`      // "" is .gitlab-ci.yml
	// VariablesRole is the minimum role that may set pipeline variables, such
	// as no_one_allowed or developer. Only Maintainers see it.
	VariablesRole string `json:"ci_pipeline_variables_minimum_override_role"`
}

// Project describes a project, by its path or ID. One that was moved answers with
// Redirected.
func (c *Client) Project(ctx context.Context, project string, token env.Secret) (Project, error) {
	var p Project
	err := c.question(ctx, "projects/"+api.PathEscape(project), nil, token, &p)
	return p, err
}

// Ref is a branch or a tag.
type Ref struct {
	Name      string `json:"name"`
	Protected bool   `json:"protected"`
}

// Branch describes a branch of a project.
func (c *Client) Branch(ctx context.Context, project, name string, token env.Secret) (Ref, error) {
	var r Ref
	err := c.question(ctx, "projects/"+api.PathEscape(project)+"/repository/branches/"+api.PathEscape(name), nil, token, &r)
	return r, err
}

// Tag describes a tag of a project's repository.
func (c *Client) Tag(ctx context.Context, project, name string, token env.Secret) (Ref, error) {
	var r Ref
	err := c.question(ctx, "projects/"+api.PathEscape(project)+"/repository/tags/"+api.PathEscape(name), nil, token, &r)
	return r, err
}

// Lint is GitLab's result of checking a project's CI/CD configuration.
type Lint struct {
	Valid    bool     `json:"valid"`
	Errors   []string `json:"errors"`
	Merged   string   `json:"merged_yaml"` // the whole configuration, with all includes
	Includes []struct {
		Type     string `json:"type"`     // component, remote, local, file or template
		Location string `json:"location"` // such as gitlab.com/acme/hubrelay/promote@1.2.0
		Extra    struct {
			Ref string `json:"ref"` // of the type file; HEAD where the include names none
		} `json:"extra"`
	} `json:"includes"`
	Jobs []struct {
		Name string `json:"name"`
	} `json:"jobs"` // nil where GitLab's answer has none
}

// Lint checks the configuration at ref.
func (c *Client) Lint(ctx context.Context, project, ref string, token env.Secret) (Lint, error) {
	var l Lint
	query := struct {
		ContentRef  string `url:"content_ref"`
		IncludeJobs bool   `url:"include_jobs"`
	}{ref, true}
	err := c.question(ctx, "projects/"+api.PathEscape(project)+"/ci/lint", query, token, &l)
	return l, err
}

// File returns a file of a project's repository at ref.
func (c *Client) File(ctx context.Context, project, ref, path string, token env.Secret) ([]byte, error) {
	query := struct {
		Ref string `url:"ref"`
	}{ref}
	got, err := c.get(ctx, "projects/"+api.PathEscape(project)+"/repository/files/"+api.PathEscape(path)+"/raw", query, token)
	if err != nil {
		return nil, err
	}
	return got.body, nil
}

// question requests a JSON object.
func (c *Client) question(ctx context.Context, path string, query any, token env.Secret, into any) error {
	got, err := c.get(ctx, path, query, token)
	if err != nil {
		return err
	}
	// A field of another type stays empty. An answer that is not an object is
	// not GitLab's.
	var odd *json.UnmarshalTypeError
	if err := json.Unmarshal(got.body, into); err != nil && (!errors.As(err, &odd) || odd.Field == "") {
		return &Error{Status: got.status, Reason: Unavailable, Hint: about(urlHint, Request{}, c.host), Cause: errors.New("the answer is not GitLab's")}
	}
	return nil
}

func (c *Client) get(ctx context.Context, path string, query any, token env.Secret) (*answer, error) {
	var options []api.RequestOptionFunc
	if !token.IsZero() {
		options = append(options, api.WithToken(api.PrivateToken, token.Reveal()))
	}
	got, err := c.do(ctx, http.MethodGet, path, query, options...)
	switch {
	case err != nil:
		return nil, err
	case got.status != http.StatusOK:
		return nil, got.unanswerable(token, c.host)
	case got.err != nil:
		return nil, &Error{Status: got.status, Reason: Unavailable, Cause: fmt.Errorf("read the answer: %w", httpclient.Unanswered(got.err))}
	}
	return got, nil
}

// unanswerable makes an Error of an answer other than 200 to such a request.
func (a answer) unanswerable(token env.Secret, host string) *Error {
	said := a.said(token)
	e := &Error{Status: a.status, Reason: Unavailable, Message: shorten(said.text), RetryAfter: a.retryAfter()}
	switch status := a.status; {
	case status >= 300 && status < 400:
		e.Reason = Redirected
	case status == http.StatusTooManyRequests:
		e.Reason = RateLimited
	case status >= 500, status == http.StatusRequestTimeout:
	case !said.json || said.nowhere:
		e.Reason, e.Hint = Rejected, about(urlHint, Request{}, host)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Reason = Unauthorized
	case status == http.StatusNotFound:
		e.Reason = NotFound
	default:
		e.Reason = Rejected
	}
	return e
}
