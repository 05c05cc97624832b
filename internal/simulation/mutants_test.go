package simulation

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var runMutants = flag.Bool("mutants", false, "have TestMutants show that the simulation finds each of them")

// mutants are faults that are put into the code one by one, by replacing old
// with new. The simulation must find every one.
var mutants = []struct {
	name, file, old, new string
}{
	{"an older look overrules a newer one", "functions/trigger/trigger.go",
		"	decision, err := snapshot.Settle(ctx, look)\n",
		"	if fresh, err := h.Promotions.Read(ctx, a.key(a.route.OncePer)); err == nil {\n\t\tsnapshot = fresh\n\t}\n	decision, err := snapshot.Settle(ctx, look)\n"},
	{"superseded counts as done", "internal/ledger/rules.go",
		"	case p.State == Superseded, p.State == Skipped", "	case p.State == Skipped"},
	{"nobody looks at a superseded tag again", "internal/ledger/rules.go",
		"p.Digest != \"\" && (p.State == Superseded || p.State == Failed", "p.Digest != \"\" && (p.State == Failed"},
	{"every sibling of a death without a digest dies as well", "internal/ledger/rules.go",
		"	case p != nil && p.State == Dead && p.Digest == \"\" && r.pending == nil && !r.isNewAttempt(l.Message):",
		"	case false:"},
	{"any letter is the death of what waits", "internal/ledger/rules.go",
		"	last := target != nil && r.tag.Waiting.is(l.Message)", "	last := target != nil"},
	{"no letter is a death", "internal/ledger/rules.go",
		"	if !last && !unlooked {", "	if last || unlooked || true {"},
	{"a replay is a duplicate", "internal/ledger/rules.go",
		"	case p.State == Dead && !m.ReplayedAt", "	case false && !m.ReplayedAt"},
	{"a push after a failure is a duplicate", "internal/ledger/rules.go",
		"	if !pushed.After(p.UpdatedAt) {", "	if pushed.After(p.UpdatedAt) || true {"},
	{"a lease does not keep others away", "internal/ledger/promotion.go",
		"now.Before(p.LeaseEnds)", "false"},
	{"nobody continues a claim whose answer is lost", "internal/ledger/rules.go",
		"	r.tag.LookBy, r.tag.Look = p.LeaseEnds.Add(StartingLookBy), l.Message", "	r.tag.Look = l.Message"},
	{"a report of an older promotion forgets what waits", "internal/ledger/rules.go",
		"r.tag.Settled == p.ID && r.pending == nil && !p.retried()", "r.tag.Settled == p.ID && !p.retried()"},
	{"an unfinished attempt keeps its state when the tag moves", "internal/ledger/rules.go",
		"			p.set(Superseded, ByTrigger, \"\", \"\", \"\", r.now)\n", ""},
	{"every pipeline of the project may report", "internal/ledger/report.go",
		"	case p.State == Failed: // by hand", "	case true:"},
	{"a project that took over the path may report", "internal/ledger/report.go",
		"	if p.ProjectID != \"\" && p.ProjectID != c.ProjectID || p.ProjectID == \"\" && !c.Allowed {", "	if !c.Allowed {"},
	{"a report of another image counts", "internal/ledger/show.go",
		"p.accepts(rep.State) && (rep.Digest == \"\" || rep.Digest == p.Digest)", "p.accepts(rep.State)"},
	{"a late report undoes the end", "internal/ledger/report.go",
		"	return false // Promoted and Skipped stay", "	return true"},
	{"promotions start each other without end", "internal/ledger/rules.go",
		"	if r.group.Row >= maxRow {", "	if false {"},
	{"nobody notices silence", "internal/ledger/outbox.go",
		"	case !p.Silent() && !now.Before(p.heardOf(repository).Add(silentAfter)):", "	case false:"},
	{"what Slack refused counts as shown", "internal/ledger/outbox.go",
		"	if r.Message {\n", "	if true {\n"},
	{"the clock does not show what could not be shown", "internal/ledger/outbox.go",
		"	if p.Behind() {\n		due(", "	if false {\n		due("},
	{"an archived channel keeps the message", "functions/notify/show.go",
		"		if !slack.IsGone(err) {", "		if true {"},
	{"two post the same message", "internal/ledger/show.go",
		"	if !p.Behind() || p.showing(s.now) {", "	if !p.Behind() {"},
	{"what Docker Hub does not deliver is lost", "functions/trigger/reconcile.go",
		"	if h.Hub != nil {", "	if false {"},
	{"a death is recorded before its letter", "functions/trigger/trigger.go",
		"	if _, err := h.DeadLetters.Publish(ctx, a.message.Data, a.message.DeadLetter(death)); err != nil {",
		"	if _, err := h.DeadLetters.Publish(ctx, a.message.Data, a.message.DeadLetter(death)); false {"},
}

// Each mutant must match the code, or it would show nothing. With -mutants, the
// simulation must find each within ten minutes.
func TestMutants(t *testing.T) {
	t.Parallel()
	const root = "../.."
	for _, m := range mutants {
		path, err := filepath.Abs(filepath.Join(root, m.file))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: what it changes stands %d times in %s", m.name, n, m.file)
			continue
		}
		if !*runMutants {
			continue
		}
		dir := t.TempDir()
		mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
		replace, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutant}})
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{mutant: strings.Replace(string(text), m.old, m.new, 1), overlay: string(replace)} {
			if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out, err := exec.Command("go", "test", "-v", "-overlay", overlay, "-run", "TestSimulate$", "-timeout", "15m", ".", "-args", "-for", "10m").CombinedOutput()
		switch promises := regexp.MustCompile(`(?m)^ +([A-Z][0-9]|report|promotion): .*$`).FindAllString(string(out), 2); {
		case err == nil:
			t.Errorf("not found: %s", m.name)
		case promises == nil:
			t.Errorf("%s: %s", m.name, out)
		default:
			t.Logf("%4s seeds: %s\n%s", regexp.MustCompile(`(\d+) seeds`).FindStringSubmatch(string(out))[1], m.name, strings.Join(promises, "\n"))
		}
	}
}
