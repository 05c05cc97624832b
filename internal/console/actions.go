package console

import (
	"net/http"

	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// faultsView has the faults that can be set, by stage.
type faultsView struct {
	Open   sandbox.Stage // whose faults are shown first
	Stages []stageFaults
}

type stageFaults struct {
	Stage      sandbox.Stage
	Name, Icon string
	Answers    []sandbox.Answer
}

// faults answers with all faults that can be set.
func (c *console) faults(w http.ResponseWriter, r *http.Request) {
	v := faultsView{Open: sandbox.Stage(r.URL.Query().Get("stage"))}
	answers := c.sandbox.Answers()
	for _, s := range sandbox.AllStages {
		f := stageFaults{Stage: s, Name: nameOf(s), Icon: stageWords[s].icon}
		for _, a := range answers {
			if a.Stage == s {
				f.Answers = append(f.Answers, a)
			}
		}
		if len(f.Answers) > 0 || s == v.Open {
			v.Stages = append(v.Stages, f)
		}
	}
	c.render(w, http.StatusOK, "faults", v)
}

// routes answers with the table of routes, for editing.
func (c *console) routes(w http.ResponseWriter, _ *http.Request) {
	c.render(w, http.StatusOK, "routes", pretty(c.sandbox.Routes()))
}
