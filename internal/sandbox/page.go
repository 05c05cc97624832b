package sandbox

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"slices"

	"github.com/getto-systems/hubrelay/internal/ledger"
)

//go:embed page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{"emoji": emoji.Replace}).Parse(pageHTML))

// page shows what Slack shows, what is not done yet, the pipelines, and what
// happened.
func (s *Sandbox) page(w http.ResponseWriter, r *http.Request) {
	messages, pipelines := s.Slack.Messages(), s.GitLab.Pipelines()
	slices.Reverse(messages)
	slices.Reverse(pipelines)
	var unfinished []ledger.Promotion
	for p, err := range s.ledger.All(r.Context()) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if !p.State.Ended() || p.Behind() {
			unfinished = append(unfinished, p)
		}
	}
	var out bytes.Buffer
	err := pageTemplate.Execute(&out, map[string]any{
		"WebhookURL": s.WebhookURL, "URL": s.URL, "Seed": Seed, "Fakes": s.fakes,
		"Messages": messages, "Unfinished": unfinished, "Pipelines": pipelines, "Events": s.events.newest(),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(out.Bytes())
}
