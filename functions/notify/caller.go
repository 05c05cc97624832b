package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/getto-systems/hubrelay/internal/auth"
	"github.com/getto-systems/hubrelay/internal/httpserver"
	"github.com/getto-systems/hubrelay/internal/route"
)

// caller is who reports: a pipeline of a GitLab project, or the holder of a shared token,
// who may report for every route.
type caller struct {
	project    route.Project // zero for the holder of a shared token
	pipelineID string
	source     string // of the pipeline, such as trigger or web
}

func (c caller) isProject() bool { return c.project != route.Project{} }

// claims of a GitLab id token. GitLab writes booleans and IDs as strings.
type claims struct {
	ProjectPath    string `json:"project_path"`
	ProjectID      string `json:"project_id"`
	PipelineID     string `json:"pipeline_id"`
	PipelineSource string `json:"pipeline_source"`
	RefProtected   string `json:"ref_protected"`
}

// identify checks the bearer token.
func (h handler) identify(ctx context.Context, token string) (caller, error) {
	unauthorized := &httpserver.Error{Status: http.StatusUnauthorized, Public: "the Authorization header has no valid bearer token"}
	switch {
	case token == "":
		return caller{}, unauthorized
	case h.Tokens.Valid(token):
		return caller{}, nil
	case h.IDTokens == nil:
		return caller{}, unauthorized
	}
	var c claims
	switch err := h.IDTokens.Verify(ctx, token, &c); {
	case errors.Is(err, auth.ErrInvalid):
		unauthorized.Cause = err
		return caller{}, unauthorized
	case err != nil:
		return caller{}, &httpserver.Error{
			Status: http.StatusServiceUnavailable, Public: "the issuer of id tokens does not answer; send it again",
			RetryAfter: retryAfter, Cause: err,
		}
	case c.ProjectPath == "" || c.ProjectID == "":
		unauthorized.Cause = errors.New("the id token names no project")
		return caller{}, unauthorized
	case c.RefProtected != "true":
		return caller{}, &httpserver.Error{
			Status: http.StatusForbidden,
			Public: fmt.Sprintf("the pipeline of %s runs on a branch or tag that is not protected", c.ProjectPath),
		}
	}
	return caller{route.Project{ID: c.ProjectID, Path: c.ProjectPath}, c.PipelineID, c.PipelineSource}, nil
}

// route finds the route of a report that belongs to no promotion. It refuses a
// project that the route does not name.
func (h handler) route(who caller, rep *report) (route.Route, error) {
	if rep.repository != "" {
		found, ok := h.Routes.Find(rep.repository)
		switch {
		case !ok:
			return found, &httpserver.Error{Status: http.StatusNotFound, Public: fmt.Sprintf("no route for %s", rep.repository)}
		case who.isProject() && !found.RunsIn(who.project):
			return found, &httpserver.Error{
				Status: http.StatusForbidden,
				Public: fmt.Sprintf("the route of %s does not name the project %s", rep.repository, who.project.Path),
			}
		}
		return found, nil
	}
	if !who.isProject() {
		return route.Route{}, &httpserver.Error{Status: http.StatusBadRequest, Public: "repository is required, for a shared token belongs to no project"}
	}
	routes := h.Routes.OfProject(who.project)
	switch len(routes) {
	case 1:
		return routes[0], nil
	case 0:
		return route.Route{}, &httpserver.Error{
			Status: http.StatusForbidden, Public: fmt.Sprintf("no route names the project %s", who.project.Path),
		}
	}
	return route.Route{}, &httpserver.Error{
		Status: http.StatusBadRequest,
		Public: fmt.Sprintf("repository is required, for %s belongs to %d routes", who.project.Path, len(routes)),
	}
}
