package gitlabtest

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// version is the version of the fake, unless another is set.
const version = "18.5.0-ee"

// Roles that may set pipeline variables.
const (
	RoleNoOne      = "no_one_allowed"
	RoleDeveloper  = "developer"
	RoleMaintainer = "maintainer"
	RoleOwner      = "owner"
)

// AccessToken is a token for the API, of a user, a project or a group.
type AccessToken struct {
	Token     string
	Scopes    []string // api if there is none
	ExpiresAt time.Time
	Revoked   bool
	// Projects are the paths of the projects that it sees; nil is every one.
	Projects []string
	// Guest means that it is not a Reporter, and cannot read code. Only a
	// Maintainer sees all settings of a project.
	Guest, Maintainer bool
}

// Include is a file that a project's configuration includes. One of the type file has
// a Ref.
type Include struct{ Type, Location, Ref string }

// AddAccessToken adds a token, or replaces the one of that text.
func (s *Server) AddAccessToken(t AccessToken) {
	if len(t.Scopes) == 0 {
		t.Scopes = []string{"api"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accessTokens = slices.DeleteFunc(s.accessTokens, func(old AccessToken) bool { return old.Token == t.Token })
	s.accessTokens = append(s.accessTokens, t)
}

// SetVersion sets the server's version, such as 17.11.2.
func (s *Server) SetVersion(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version = text
}

// AnswerQuestions makes f the answer to all GET requests of the API while it is
// set, like a proxy in front of GitLab.
func (s *Server) AnswerQuestions(f *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.questions = f
}

// json message of GitLab's API.
func message(text string) any { return map[string]any{"message": text} }

// identify finds the token of a request that needs one of the scopes, or says
// why the request is refused. The caller holds the lock.
func (s *Server) identify(r *http.Request, scopes ...string) (t AccessToken, status int, answer any) {
	text := r.Header.Get("PRIVATE-TOKEN")
	i := slices.IndexFunc(s.accessTokens, func(t AccessToken) bool { return t.Token == text })
	switch {
	case text == "":
		return t, http.StatusUnauthorized, message("401 Unauthorized")
	case i < 0:
		return t, http.StatusUnauthorized, message("401 Unauthorized")
	}
	t = s.accessTokens[i]
	switch {
	case t.Revoked:
		return t, http.StatusUnauthorized, map[string]any{"error": "invalid_token", "error_description": "Token was revoked. You have to re-authorize from the user."}
	case t.expired():
		return t, http.StatusUnauthorized, map[string]any{"error": "invalid_token", "error_description": "Token is expired. You can either do re-authorization or token refresh."}
	case !slices.ContainsFunc(t.Scopes, func(scope string) bool { return slices.Contains(scopes, scope) }):
		return t, http.StatusForbidden, map[string]any{
			"error": "insufficient_scope", "scope": strings.Join(scopes, " "),
			"error_description": "The request requires higher privileges than provided by the access token.",
		}
	}
	return t, 0, nil
}

func (t AccessToken) expired() bool { return !t.ExpiresAt.IsZero() && !time.Now().Before(t.ExpiresAt) }

func (t AccessToken) sees(p Project) bool {
	return t.Projects == nil || slices.Contains(t.Projects, p.Path)
}

// asked serves a GET request, which do answers under the lock.
func (s *Server) asked(do func(r *http.Request) (status int, answer any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		refuse := s.questions
		status, answer := do(r)
		s.mu.Unlock()
		if refuse != nil {
			refuse.answer(w, r)
			return
		}
		if to, ok := answer.(movedTo); ok {
			w.Header().Set("Location", string(to))
			answer = message("301 Moved Permanently")
		}
		if text, ok := answer.(rawFile); ok {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
			return
		}
		writeJSON(w, status, answer)
	}
}

type (
	movedTo string // the target of a redirect
	rawFile string
)

func (s *Server) showVersion(r *http.Request) (status int, answer any) {
	if _, status, answer := s.identify(r, "api", "read_api", "read_user"); status != 0 {
		return status, answer
	}
	return http.StatusOK, map[string]any{"version": cmp.Or(s.version, version), "revision": "0123456789a"}
}

func (s *Server) showToken(r *http.Request) (status int, answer any) {
	t, status, answer := s.identify(r, "api", "read_api", "read_user", "self_rotate", "read_repository", "write_repository", "read_registry")
	if status != 0 {
		return status, answer
	}
	var expires any
	if !t.ExpiresAt.IsZero() {
		expires = t.ExpiresAt.UTC().Format(time.DateOnly)
	}
	return http.StatusOK, map[string]any{
		"id": 42, "name": "hubrelay", "revoked": false, "created_at": "2026-01-02T03:04:05.678Z", "description": nil,
		"scopes": t.Scopes, "user_id": userID, "last_used_at": nil, "active": true, "expires_at": expires,
	}
}

// ofProject lets do answer a GET request about a project that the token can
// see.
func (s *Server) ofProject(do func(t AccessToken, p Project, r *http.Request) (status int, answer any)) http.HandlerFunc {
	return s.asked(func(r *http.Request) (int, any) {
		t, status, answer := s.identify(r, "api", "read_api")
		switch {
		case r.Header.Get("PRIVATE-TOKEN") == "": // private projects are hidden
			return http.StatusNotFound, message("404 Project Not Found")
		case status != 0:
			return status, answer
		}
		id := r.PathValue("id")
		p, ok := s.find(id)
		switch {
		case !ok, !t.sees(p):
			return http.StatusNotFound, message("404 Project Not Found")
		case p.MovedFrom != "" && p.MovedFrom == id:
			return http.StatusMovedPermanently, movedTo(s.baseURL + "/api/v4/projects/" + strconv.Itoa(p.ID))
		}
		return do(t, p, r)
	})
}

func (s *Server) showProject(t AccessToken, p Project, _ *http.Request) (status int, answer any) {
	access := "enabled"
	if p.CIDisabled {
		access = "disabled"
	}
	shown := map[string]any{
		"id": p.ID, "path_with_namespace": p.Path, "name": p.Path[strings.LastIndex(p.Path, "/")+1:], "default_branch": "main",
		"web_url": s.baseURL + "/" + p.Path, "archived": p.Archived, "empty_repo": p.EmptyRepo, "visibility": "private",
		"builds_access_level": access, "jobs_enabled": !p.CIDisabled,
	}
	if !t.Guest {
		shown["ci_config_path"] = p.CIConfigPath
	}
	if t.Maintainer {
		shown["ci_pipeline_variables_minimum_override_role"] = cmp.Or(p.VariablesRole, RoleDeveloper)
	}
	return http.StatusOK, shown
}

func (s *Server) showBranch(t AccessToken, p Project, r *http.Request) (status int, answer any) {
	name := r.PathValue("ref")
	return showRef(t, p, p.anyRef || slices.Contains(p.Refs, name), name, "404 Branch Not Found")
}

func (s *Server) showTag(t AccessToken, p Project, r *http.Request) (status int, answer any) {
	name := r.PathValue("ref")
	return showRef(t, p, slices.Contains(p.Tags, name), name, "404 Tag Not Found")
}

func showRef(t AccessToken, p Project, exists bool, name, missing string) (status int, answer any) {
	switch {
	case t.Guest:
		return http.StatusForbidden, message("403 Forbidden")
	case p.EmptyRepo, !exists:
		return http.StatusNotFound, message(missing)
	}
	return http.StatusOK, map[string]any{
		"name": name, "protected": !slices.Contains(p.Unprotected, name), "commit": map[string]any{"id": commit(p.Path, name)},
	}
}

func (s *Server) lint(t AccessToken, p Project, r *http.Request) (status int, answer any) {
	ref := r.URL.Query().Get("content_ref")
	switch {
	case t.Guest:
		return http.StatusForbidden, message("403 Forbidden")
	case p.EmptyRepo:
		return http.StatusNotFound, message("404 Repository Not Found")
	case !p.hasRef(ref):
		return http.StatusNotFound, message("404 Commit Not Found")
	}
	result := map[string]any{"valid": true, "errors": []string{}, "warnings": []string{}, "merged_yaml": p.Merged, "includes": []any{}}
	jobs := []any{}
	switch {
	case p.Files != nil && p.Files[p.configPath()] == "":
		result["valid"], result["errors"] = false, []string{"Please provide content of .gitlab-ci.yml"}
	case p.InvalidYAML:
		result["valid"], result["errors"] = false, []string{"jobs config should contain at least one visible job"}
	default:
		names := p.Jobs
		if names == nil {
			names = []string{"hubrelay-running", JobName, "hubrelay-done", "hubrelay-failed"}
		}
		for _, name := range names {
			jobs = append(jobs, map[string]any{"name": name, "stage": "deploy", "script": []string{"true"}, "when": "on_success", "allow_failure": false})
		}
		included := []any{}
		for _, i := range p.Includes {
			extra := map[string]any{}
			if i.Ref != "" {
				extra["project"], extra["ref"] = "acme/hubrelay", i.Ref
			}
			included = append(included, map[string]any{
				"type": i.Type, "location": i.Location, "blob": nil, "raw": i.Location, "extra": extra, "context_project": p.Path,
				"context_sha": commit(p.Path, ref),
			})
		}
		result["includes"] = included
	}
	if r.URL.Query().Get("include_jobs") == "true" {
		result["jobs"] = jobs
	}
	return http.StatusOK, result
}

func (s *Server) showFile(t AccessToken, p Project, r *http.Request) (status int, answer any) {
	text, ok := p.Files[r.PathValue("file")]
	switch {
	case t.Guest:
		return http.StatusForbidden, message("403 Forbidden")
	case !p.hasRef(r.URL.Query().Get("ref")):
		return http.StatusNotFound, message("404 Commit Not Found")
	case !ok:
		return http.StatusNotFound, message("404 File Not Found")
	}
	return http.StatusOK, rawFile(text)
}

func (p Project) hasRef(ref string) bool {
	return p.anyRef || slices.Contains(p.Refs, ref) || slices.Contains(p.Tags, ref)
}

func (p Project) configPath() string { return cmp.Or(p.CIConfigPath, ".gitlab-ci.yml") }
