package gitlabtest

import (
	"net/http"
	"slices"
	"strconv"
	"time"
)

// JobName is the name of the one job that a pipeline has.
const JobName = "hubrelay-promote"

// job is one attempt of a pipeline's job.
type job struct {
	id, pipeline int
	status       string
	finished     time.Time // zero if it has not
	retried      bool      // there is a later one
}

// addJob adds the job of a pipeline, and returns its ID. The caller holds the
// lock.
func (s *Server) addJob(p Pipeline) int {
	s.lastJobID++
	id := 1000 + s.lastJobID // so that it differs from every pipeline's ID
	s.jobs = appendBounded(s.jobs, job{id: id, pipeline: p.ID, status: "created"})
	return id
}

// run starts the simulation of the pipeline. The caller holds the lock.
func (s *Server) run(p Pipeline) {
	if s.onPipeline != nil {
		go s.onPipeline(p.clone())
	}
}

// pipeline finds a pipeline that is stored. The caller holds the lock.
func (s *Server) pipeline(project, id string) *Pipeline {
	for i := range s.pipelines {
		if p := &s.pipelines[i]; p.Project == project && strconv.Itoa(p.ID) == id {
			return p
		}
	}
	return nil
}

// setStatus changes the status of a pipeline and of its latest job. The caller
// holds the lock.
func (s *Server) setStatus(p *Pipeline, status string) {
	p.Status = status
	for i := range s.jobs {
		if s.jobs[i].id == p.JobID {
			s.jobs[i].status, s.jobs[i].finished = status, time.Time{}
			if ended(status) {
				s.jobs[i].finished = time.Now()
			}
		}
	}
}

func ended(status string) bool {
	return slices.Contains([]string{"success", "failed", "canceled", "skipped"}, status)
}

// Retry runs the job of a pipeline that failed or was canceled again, as the
// button in GitLab does: in the same pipeline, as another job. It does nothing
// to any other pipeline, and reports whether it did.
func (s *Server) Retry(projectPath string, id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pipeline(projectPath, strconv.Itoa(id))
	return p != nil && s.retryPipeline(p)
}

func (s *Server) retryPipeline(p *Pipeline) bool {
	if p.JobID == 0 || p.Status != "failed" && p.Status != "canceled" {
		return false
	}
	for i := range s.jobs {
		if s.jobs[i].pipeline == p.ID {
			s.jobs[i].retried = true
		}
	}
	p.JobID = s.addJob(*p)
	s.setStatus(p, "pending")
	s.run(*p)
	return true
}

// Cancel cancels a pipeline that has not ended, as the button in GitLab does.
// The function given to OnPipeline is not told. It reports whether it did
// anything.
func (s *Server) Cancel(projectPath string, id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pipeline(projectPath, strconv.Itoa(id))
	return p != nil && s.cancelPipeline(p)
}

func (s *Server) cancelPipeline(p *Pipeline) bool {
	if ended(p.Status) {
		return false
	}
	s.setStatus(p, "canceled")
	return true
}

// api answers a call with an access token about one pipeline. do is called
// under the lock.
func (s *Server) api(do func(p *Pipeline, r *http.Request) (status int, answer any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		status, answer := func() (int, any) {
			defer s.mu.Unlock()
			scopes := []string{"api"}
			if r.Method == http.MethodGet {
				scopes = append(scopes, "read_api")
			}
			token, refused, why := s.identify(r, scopes...)
			project, ok := s.find(r.PathValue("id"))
			switch {
			case r.Header.Get("PRIVATE-TOKEN") == "": // private projects are hidden
				return http.StatusNotFound, map[string]any{"message": "404 Project Not Found"}
			case refused != 0:
				return refused, why
			case !ok, !token.sees(project):
				return http.StatusNotFound, map[string]any{"message": "404 Project Not Found"}
			case project.MovedFrom != "" && project.MovedFrom == r.PathValue("id"):
				return s.moved(w, r, project)
			}
			p := s.pipeline(project.Path, r.PathValue("pipeline"))
			if p == nil {
				return http.StatusNotFound, map[string]any{"message": "404 Not found"}
			}
			return do(p, r)
		}()
		writeJSON(w, status, answer)
	}
}

// moved answers a call with a former path of the project.
func (s *Server) moved(w http.ResponseWriter, r *http.Request, project Project) (status int, answer any) {
	if r.Method != http.MethodGet {
		return http.StatusMethodNotAllowed, map[string]any{"message": "Non GET methods are not allowed for moved projects"}
	}
	to := s.baseURL + "/api/v4/projects/" + strconv.Itoa(project.ID) + "/pipelines/" + r.PathValue("pipeline")
	if r.Pattern == jobsPattern {
		to += "/jobs"
	}
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", to)
	return http.StatusMovedPermanently, map[string]any{"message": "301 Moved Permanently"}
}

const jobsPattern = "GET /api/v4/projects/{id}/pipelines/{pipeline}/jobs"

func (s *Server) show(p *Pipeline, _ *http.Request) (status int, answer any) {
	return http.StatusOK, p.json()
}

// listJobs lists the latest job, and the earlier ones if they are asked for.
func (s *Server) listJobs(p *Pipeline, r *http.Request) (status int, answer any) {
	listed := []any{}
	for _, j := range slices.Backward(s.jobs) {
		if j.pipeline != p.ID || j.retried && r.URL.Query().Get("include_retried") != "true" {
			continue
		}
		var finished any
		if !j.finished.IsZero() {
			finished = j.finished.UTC().Format("2006-01-02T15:04:05.000Z")
		}
		listed = append(listed, map[string]any{
			"finished_at": finished,
			"id":          j.id, "name": JobName, "stage": "deploy", "status": j.status, "ref": p.Ref, "tag": false, "allow_failure": false,
			"web_url":  s.baseURL + "/" + p.Project + "/-/jobs/" + strconv.Itoa(j.id),
			"pipeline": map[string]any{"id": p.ID, "iid": p.IID, "project_id": p.ProjectID, "status": p.Status, "source": p.Source, "web_url": p.WebURL},
		})
	}
	return http.StatusOK, listed
}

func (s *Server) retry(p *Pipeline, _ *http.Request) (status int, answer any) {
	s.retryPipeline(p)
	return http.StatusCreated, p.json()
}

func (s *Server) cancel(p *Pipeline, _ *http.Request) (status int, answer any) {
	s.cancelPipeline(p)
	return http.StatusOK, p.json()
}
