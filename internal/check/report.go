package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// jsonVersion is that of the form in which a Report is written as JSON. It grows
// where a field changes its meaning or goes.
const jsonVersion = 1

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	findings := r.Findings
	if findings == nil {
		findings = []Finding{}
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		Version  int            `json:"version"`
		ExitCode int            `json:"exit_code"`
		Summary  map[string]int `json:"summary"`
		Findings []Finding      `json:"findings"`
	}{jsonVersion, r.ExitCode(), map[string]int{
		"pass": r.Count(Pass), "warn": r.Count(Warn), "fail": r.Count(Fail), "skip": r.Count(Skip), "unknown": r.Unknown(),
	}, findings})
}

// badge is how a status is shown: a mark, a word to search for, and a colour.
type badge struct{ mark, word, colour string }

func (f Finding) badge() badge {
	switch {
	case f.Unknown:
		return badge{"?", "unknown", "35"}
	case f.Status == Pass:
		return badge{"✔", "pass", "32"}
	case f.Status == Warn:
		return badge{"▲", "warn", "33"}
	case f.Status == Fail:
		return badge{"✗", "fail", "31"}
	}
	return badge{"-", "skip", "90"}
}

// WriteText writes the report for people: a line for each finding, with what was
// found and what was wanted, and below it how to fix what is not right.
func (r Report) WriteText(w io.Writer, colours bool) error {
	paint := func(colour, text string) string {
		if !colours {
			return text
		}
		return "\x1b[" + colour + "m" + text + "\x1b[0m"
	}
	var b strings.Builder
	section := ""
	for _, f := range r.Findings {
		if f.Section() != section {
			section = f.Section()
			fmt.Fprintf(&b, "%s %s\n", paint("36", "►"), section)
		}
		l := f.badge()
		what := f.ID
		if f.Subject != "" {
			what += " " + f.Subject
		}
		fmt.Fprintf(&b, "%s %s: %s", paint(l.colour, l.mark+" "+l.word), what, f.Found)
		if f.Status != Skip || f.Unknown {
			fmt.Fprintf(&b, " (wanted: %s)", f.Wanted)
		}
		b.WriteByte('\n')
		if f.Mend != "" && f.Status != Pass {
			fmt.Fprintf(&b, "    fix: %s\n", f.Mend)
		}
		if f.Status == Fail || f.Status == Warn || f.Unknown {
			fmt.Fprintf(&b, "    page: %s\n", f.Page)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.summary())
	_, err := io.WriteString(w, b.String())
	return err
}

// summary says in a line what it comes to.
func (r Report) summary() string {
	counts := fmt.Sprintf("%d pass, %d warn, %d fail, %d skip, %d unknown", r.Count(Pass), r.Count(Warn), r.Count(Fail), r.Count(Skip), r.Unknown())
	switch {
	case r.Count(Fail) > 0:
		return counts + ": fix what failed."
	case r.Unknown() > 0:
		return counts + ": not everything could be checked."
	case r.Count(Pass)+r.Count(Warn) == 0:
		return counts + ": nothing was checked."
	case r.Count(Warn) > 0:
		return counts + ": nothing failed; read the warnings."
	case r.Count(Skip) > 0:
		return counts + ": everything that was checked is fine; what was skipped was not checked."
	}
	return counts + ": everything is fine."
}
