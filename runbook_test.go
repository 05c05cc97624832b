package hubrelay

// These tests try what docs/operations.md says, as far as that is possible
// without an account: its commands, the files that it shows, its names, and its
// sums.

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getto-systems/hubrelay/functions/trigger"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/hub"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/skip"
)

const runbook = "docs/operations.md"

// block is a fenced block of a page, without the indentation of a list.
type block struct {
	language string
	text     string
	before   string // the line before it that is not empty
	after    string // the line after it that is not empty
}

func blocks(t *testing.T, page string) []block {
	t.Helper()
	var (
		found  []block
		lines  = strings.Split(read(t, page), "\n")
		filled = func(i, step int) string {
			for ; i >= 0 && i < len(lines); i += step {
				if line := strings.TrimSpace(lines[i]); line != "" {
					return line
				}
			}
			return ""
		}
	)
	for i := 0; i < len(lines); i++ {
		language, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), "```")
		if !ok {
			continue
		}
		indent, start := strings.Index(lines[i], "```"), i
		var text strings.Builder
		for i++; strings.TrimSpace(lines[i]) != "```"; i++ {
			text.WriteString(lines[i][min(indent, len(lines[i])):] + "\n")
		}
		found = append(found, block{language, text.String(), filled(start-1, -1), filled(i+1, 1)})
	}
	return found
}

// commands returns the lines of all blocks of shell.
func commands(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, b := range blocks(t, runbook) {
		if b.language == "sh" {
			lines = append(lines, strings.Split(strings.TrimSpace(b.text), "\n")...)
		}
	}
	return lines
}

func TestEveryCommandOfTheRunbookIsMarked(t *testing.T) {
	t.Parallel()
	tests := source(t, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
	found := 0
	for _, b := range blocks(t, runbook) {
		if b.language != "sh" {
			continue
		}
		found++
		if !strings.HasPrefix(b.after, "*Run by `Test") && !strings.HasPrefix(b.after, "*Needs an account: ") {
			t.Errorf("neither run by a test nor marked as needing an account:\n%s", b.text)
		}
		for _, name := range captures("`(Test[A-Za-z]+)`", b.after) {
			if !strings.Contains(tests, "func "+name+"(") {
				t.Errorf("%s does not exist", name)
			}
		}
		if strings.Contains(b.text, "logging read") && !strings.Contains(b.text, `"hubrelay-`) {
			t.Errorf("shows the log of others, too:\n%s", b.text)
		}
	}
	if found < 20 {
		t.Errorf("%d blocks of shell", found)
	}
}

// TestRunbook runs the commands that are marked with it, in their order: from
// the key to a plan of what they have written.
func TestRunbook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "terraform", "tests", "variables"), os.DirFS("terraform/tests/variables")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"grammar.tf", "variables.tf", "terraform.tfvars.example"} {
		if err := os.WriteFile(filepath.Join(dir, "terraform", name), []byte(read(t, "terraform/"+name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tools, err := filepath.Abs(".tools")
	if err != nil {
		t.Fatal(err)
	}
	path := tools + string(os.PathListSeparator) + os.Getenv("PATH")
	for _, name := range []string{"terraform", "cosign", "openssl", "base64"} {
		if !slices.ContainsFunc(filepath.SplitList(path), func(dir string) bool {
			_, err := exec.LookPath(filepath.Join(dir, name))
			return err == nil
		}) {
			skip.UnlessCI(t, "the runbook's commands: there is no "+name)
		}
	}

	// The plan is run again at the end, because a rotation has changed it.
	const settings = "-var-file=../../terraform.tfvars"
	script, plan := "set -eu\n", ""
	for _, b := range blocks(t, runbook) {
		if strings.HasPrefix(b.after, "*Run by `TestRunbook`.*") {
			if strings.Contains(b.text, settings) {
				plan = b.text
			}
			script += b.text
		}
	}
	script = strings.ReplaceAll(script+plan, settings, settings+" -var='secret_versions={ registry_auth = 1 }'")
	script = strings.ReplaceAll(script, "'SLACK_BOT_TOKEN'", "'xoxb-0123456789'")

	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+path, "TF_DATA_DIR="+filepath.Join(dir, ".terraform"), "TF_IN_AUTOMATION=1", "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), "No changes."); n != 2 {
		t.Errorf("%d of 2 plans find nothing wrong:\n%s", n, out)
	}
	for _, file := range []string{"cosign.key", "cosign.pub", "terraform/backend.tf"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
}

// TestGcloudTakesTheCommands lets gcloud itself check its commands: it knows
// its flags without an account.
func TestGcloudTakesTheCommands(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gcloud"); err != nil {
		skip.UnlessCI(t, "the spelling of gcloud's commands: the Google Cloud SDK is not installed")
	}
	type command struct {
		Text string `json:"command_string"`
	}
	var theirs []command
	words := strings.NewReplacer("KEY_PROJECT", "acme-keys", "PROJECT", "acme-hubrelay", "REGION", "europe-west1", `"$service.googleapis.com"`, "run.googleapis.com", "$agent", "gcp-sa-pubsub")
	for _, line := range commands(t) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "gcloud ") {
			theirs = append(theirs, command{words.Replace(line)})
		}
	}
	if len(theirs) < 15 {
		t.Fatalf("%d commands of gcloud", len(theirs))
	}
	list, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "commands.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gcloud", "meta", "lint-gcloud-commands", "--commands-file="+file)
	cmd.Env = append(os.Environ(), "CLOUDSDK_CORE_DISABLE_PROMPTS=1", "CLOUDSDK_CONFIG="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gcloud: %v", err)
	}
	var found []struct {
		command
		Success bool    `json:"success"`
		Error   *string `json:"error_message"`
	}
	if err := json.Unmarshal(out, &found); err != nil || len(found) != len(theirs) {
		t.Fatalf("%d of %d commands looked at, %v", len(found), len(theirs), err)
	}
	for _, c := range found {
		if !c.Success {
			t.Errorf("%s: %s", c.Text, strings.SplitN(*c.Error, "\n", 2)[0])
		}
	}
}

func TestHubrelayTakesTheFlagsOfTheRunbook(t *testing.T) {
	t.Parallel()
	used := map[string]map[string]bool{}
	texts := append(commands(t), read(t, "terraform/outputs.tf"))
	for _, text := range texts {
		text = regexp.MustCompile(`\$\([^)]*\)`).ReplaceAllString(text, "")
		for _, m := range regexp.MustCompile(`go run \./cmd/hubrelay ([a-z]+)((?: [^ "|\n]+| "[^"]*")*)`).FindAllStringSubmatch(text, -1) {
			if used[m[1]] == nil {
				used[m[1]] = map[string]bool{}
			}
			for _, name := range captures(` --?([a-z]+)`, m[2]) {
				used[m[1]][name] = true
			}
		}
	}
	if len(used) < 3 {
		t.Fatalf("%d commands of hubrelay", len(used))
	}
	hubrelay := filepath.Join(t.TempDir(), "hubrelay")
	if out, err := exec.Command("go", "build", "-o", hubrelay, "./cmd/hubrelay").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for command, flags := range used {
		if command == "reconcile" && !strings.Contains(source(t, func(name string) bool {
			return strings.HasPrefix(name, "cmd/hubrelay/") && !strings.HasSuffix(name, "_test.go")
		}), `"reconcile"`) {
			t.Log("*** NOT RUN *** there is no hubrelay reconcile to try its flags on")
			continue
		}
		help, err := exec.Command(hubrelay, command, "-h").CombinedOutput()
		if err != nil {
			t.Errorf("hubrelay %s -h: %v", command, err)
		}
		for name := range flags {
			if !regexp.MustCompile(`(?m)^\s+--?` + name + `\b`).Match(help) {
				t.Errorf("hubrelay %s has no flag %s", command, name)
			}
		}
	}
}

func TestThePagesShowTheFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	shown := map[string]bool{}
	for _, page := range []string{runbook, "terraform/README.md"} {
		for _, b := range blocks(t, page) {
			name := strings.TrimSuffix(strings.TrimPrefix(b.before, "<!-- "), " -->")
			if name == b.before || !strings.Contains(name, "/") {
				continue
			}
			shown[name] = true
			if b.text != read(t, name) {
				t.Errorf("%s shows another %s than there is", page, name)
			}
		}
	}
	want := []string{"terraform/terraform.tfvars.example"}
	for _, example := range []string{"complete", "existing-secrets", "minimal", "module"} {
		want = append(want, "terraform/examples/"+example+"/main.tf")
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(shown)); !slices.Equal(got, want) {
		t.Errorf("shown are %v, should be %v", got, want)
	}
}

// source returns the text of all Go files that wanted chooses.
func source(t *testing.T, wanted func(name string) bool) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && strings.HasPrefix(name, ".") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") && wanted(filepath.ToSlash(name)) {
			text.WriteString(read(t, name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// deployed is the Go code that is deployed.
func deployed(t *testing.T) string {
	t.Helper()
	return source(t, func(name string) bool {
		return !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "test/") &&
			!strings.HasPrefix(name, "cmd/") && !strings.HasPrefix(name, "internal/sandbox/")
	})
}

// TestAlertsCountWhatTheCodeWrites checks that the code writes every log
// message that monitoring.tf counts. Otherwise an alert would never be raised.
func TestAlertsCountWhatTheCodeWrites(t *testing.T) {
	t.Parallel()
	code, monitoring := deployed(t), read(t, "terraform/monitoring.tf")
	var messages []string
	for _, filter := range captures(`metric\.labels\.message=(one_of\([^)]*\)|\\"[^"]*\\")`, monitoring) {
		messages = append(messages, captures(`\\"([^"\\]+)\\"`, filter)...)
	}
	if len(messages) < 3 {
		t.Fatalf("terraform/monitoring.tf counts %v", messages)
	}
	for _, message := range messages {
		if !strings.Contains(code, strconv.Quote(message)) {
			t.Errorf("terraform/monitoring.tf counts %q, which nothing writes", message)
		}
	}
	keys := captures(`([a-z_]+)`, regexp.MustCompile(`(?s)keys in use are: (.*?)\npackage`).FindString(read(t, "internal/gcplog/gcplog.go")))
	for _, key := range append(captures(`EXTRACT\(jsonPayload\.([a-z_]+)\)`, monitoring), captures(`jsonPayload\.([a-z_]+)`, read(t, runbook)+read(t, "terraform/outputs.tf"))...) {
		if key != "message" && !slices.Contains(keys, key) {
			t.Errorf("no line has the key %s", key)
		}
	}
}

// TestNamesOfTheRunbookExist checks the names in backquotes: messages, reasons,
// states, and names of Terraform.
func TestNamesOfTheRunbookExist(t *testing.T) {
	t.Parallel()
	code, config := deployed(t), ""
	files, err := filepath.Glob("terraform/*.tf")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		config += read(t, file)
	}
	// Codes of other systems are in lists, several in one string.
	codes := map[string]bool{}
	for _, list := range captures(`"([a-z_]+(?: [a-z_]+)* ?)"`, code) {
		for _, word := range strings.Fields(list) {
			codes[word] = strings.Contains(word, "_")
		}
	}
	// Messages of other programs, and commands.
	others := []string{"certificate signed by unknown authority"}
	text := regexp.MustCompile("(?s)```.*?```").ReplaceAllString(read(t, runbook), "")
	names := append(captures("`([a-z]+(?:_[a-z]+)+)`", text), captures("`((?:[a-z]+ ){1,4}[a-z]+)`", text)...)
	if len(names) < 40 {
		t.Fatalf("%d names in %s", len(names), runbook)
	}
	for _, name := range names {
		if slices.Contains(others, name) || regexp.MustCompile(`^(?:docker|gcloud|git|go|hubrelay|terraform) `).MatchString(name) {
			continue
		}
		if !strings.Contains(code, strconv.Quote(name)) && !codes[name] && !regexp.MustCompile(`\b`+name+`\b`).MatchString(config) {
			t.Errorf("%s names %q, which neither the code nor terraform/ has", runbook, name)
		}
	}
	for _, message := range captures(`"([a-z]+(?: [a-z]+)+)"`, strings.Join(captures(`jsonPayload\.message=(\([^)]*\)|"[^"]*")`, read(t, runbook)), "\n")) {
		if !strings.Contains(code, strconv.Quote(message)) {
			t.Errorf("%s looks for %q, which nothing writes", runbook, message)
		}
	}
}

func TestTheCostsAddUp(t *testing.T) {
	t.Parallel()
	_, table, ok := strings.Cut(read(t, runbook), "**10 million webhooks**")
	if !ok {
		t.Fatal("there are no costs")
	}
	var sums [3]float64
	for _, row := range regexp.MustCompile(`(?m)^\| .* \|$`).FindAllString(table, -1) {
		cells := regexp.MustCompile(`\$([0-9.]+)`).FindAllStringSubmatch(row, -1)
		if len(cells) != len(sums) {
			continue
		}
		for i, cell := range cells {
			dollars, err := strconv.ParseFloat(cell[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(row, "**sum**") {
				sums[i] += dollars
			} else if math.Abs(sums[i]-dollars) > 0.001 {
				t.Errorf("column %d says %.2f, and is %.2f", i+1, dollars, sums[i])
			}
		}
	}
	if sums[0] == 0 {
		t.Error("nothing was added")
	}
	conditions := len(captures(`(?m)^        "([^"]+)" = \{$`, read(t, "terraform/monitoring.tf")))
	words := []string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if want := fmt.Sprintf("%s conditions, at $0.10 to $1.50 each, sources differ: $%.2f to $%.2f", words[conditions], 0.1*float64(conditions), 1.5*float64(conditions)); !strings.Contains(table, want) {
		t.Errorf("it does not say: %s", want)
	}
}

// What the page assumes for the costs of reconciling, in addition to the
// constants of the code.
const (
	pushesOfRepository = 3   // a day
	eventsOfPush       = 3   // of the audit log: the tag, its signature, the moving tag
	secondsOfPage      = 0.2 // of Docker Hub's API, and of a login
	secondsOfPush      = 0.3 // for the registry's three answers
	logins             = 144 // a day: Docker Hub's last ten minutes
	startsOfTrigger    = 4   // of its instance, a day
	secondsAtRest      = 23_000

	// Documents of Firestore. A query without a result is a read, too.
	readsOfCall, writesOfCall  = 6, 2
	readsOfTick                = 2
	readsOfPush, writesOfPush  = 4, 1
	readsAnewOfPush            = 2 // of the last day, once in each instance
	requestsOfPush             = 3 // to the registry: whom to ask, the login, the question
	freeReads, freeWrites      = 50_000, 20_000
	euroOfReads, euroOfWrites  = 0.06 / 100_000, 0.18 / 100_000
	euroOfCPU, euroOfMemory    = 0.000024, 0.0000025
	freeCPU, freeMemory        = 180_000, 360_000
	euroOfRequest, euroOfClock = 0.40 / 1e6, 2 * 0.10
)

// number reads the one constant of that name in a group of constants.
func number(t *testing.T, code, name string) int {
	t.Helper()
	found := captures(`(?m)^\t`+name+`\s+= ([0-9_]+)$`, code)
	if len(found) != 1 {
		t.Fatalf("there are %d constants %s", len(found), name)
	}
	n, err := strconv.Atoi(strings.ReplaceAll(found[0], "_", ""))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func TestTheCostsOfReconcilingAddUp(t *testing.T) {
	t.Parallel()
	code := deployed(t)
	eventsOfPage, repositoriesOfPage, pagesOfCall := number(t, code, "auditPage"), number(t, code, "repositoryPage"), number(t, code, "maxPages")
	if got := captures(`schedule += "([^"]+)"`, read(t, "terraform/scheduler.tf")); !slices.Equal(got, []string{"* * * * *", "*/5 * * * *"}) {
		t.Fatalf("the clock calls at %v", got)
	}
	const calls, ticks, month = 24 * 60 / 5, 24 * 60, 30

	_, page, ok := strings.Cut(read(t, runbook), "\n### What reconciling costs\n")
	if !ok {
		t.Fatal("there are no costs")
	}
	rows := map[string][]string{}
	add := func(what, cell string) { rows[what] = append(rows[what], cell) }
	whole := func(what string, n int) { add(what, thousands(n)) }
	for _, repositories := range []int{10, 100, 1000} {
		pushes := repositories * pushesOfRepository
		whole("Pushes", pushes)
		whole("Requests to the registry", pushes*requestsOfPush)

		reads := calls*readsOfCall + ticks*readsOfTick + pushes*readsOfPush +
			startsOfTrigger*pushes*readsAnewOfPush
		writes := calls*writesOfCall + pushes*writesOfPush
		whole("Firestore, reads", reads)
		whole("Firestore, writes", writes)
		if reads > freeReads || writes > freeWrites {
			t.Errorf("%d repositories: %d reads and %d writes are more than what is free", repositories, reads, writes)
		}

		up := func(n, by int) int { return (n + by - 1) / by }
		log := up(pushes*eventsOfPush, eventsOfPage) + 1
		round := repositories + up(repositories, repositoriesOfPage) + 1
		whole("**Audit log:** pages a call", log)
		whole("**Tags:** pages a round", round)
		whole("calls a round", up(round, pagesOfCall))
		whole("minutes until a push is found, at most", 10+5*up(round, pagesOfCall))
		for way, pages := range map[string]int{"Audit log": log, "Tags": min(round, pagesOfCall)} {
			requests := pages*calls + logins
			whole(way+": requests to Docker Hub", requests)
			seconds := month * (float64(requests)*secondsOfPage + float64(pushes)*secondsOfPush)
			whole(way+": vCPU-s a month", int(math.Round(seconds)))
			memory := seconds / 4
			more := max(0, seconds+secondsAtRest-freeCPU)*euroOfCPU + max(0, memory+secondsAtRest/4-freeMemory)*euroOfMemory
			add(way+": **euros a month**", fmt.Sprintf("**€%.2f**", more))
			all := seconds*euroOfCPU + memory*euroOfMemory + month*(calls+ticks)*euroOfRequest + euroOfClock +
				month*(float64(reads)*euroOfReads+float64(writes)*euroOfWrites)
			add(way+": the same, if nothing were free", fmt.Sprintf("€%.2f", all))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(rows)) {
		want := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(what) + ` \| [^|\n]* \| ` + regexp.QuoteMeta(strings.Join(rows[what], " | ")) + ` \|$`)
		if !want.MatchString(page) {
			t.Errorf("it does not say: | %s | … | %s |", what, strings.Join(rows[what], " | "))
		}
	}
	const most = 3 * 50 * calls * month // a call has three parts
	if want := fmt.Sprintf("%s vCPU-s, €%.2f", thousands(most), most*euroOfCPU); !strings.Contains(page, want) {
		t.Errorf("it does not say: %s", want)
	}
	if want := fmt.Sprintf("%s reads and %s writes a day", thousands(calls*readsOfCall+ticks*readsOfTick), thousands(calls*writesOfCall)); !strings.Contains(page, want) {
		t.Errorf("it does not say: %s", want)
	}
}

// The numbers of documents, pages and requests in the sums.

type countedStore struct {
	ledger.Store
	reads, writes int
}

func (s *countedStore) Tags(ctx context.Context, ids ...string) ([]*ledger.Tag, time.Time, error) {
	s.reads += max(1, len(ids))
	return s.Store.Tags(ctx, ids...)
}

func (s *countedStore) Promotions(ctx context.Context, ids ...string) ([]*ledger.Promotion, time.Time, error) {
	s.reads += max(1, len(ids))
	return s.Store.Promotions(ctx, ids...)
}

func (s *countedStore) Progress(ctx context.Context) (*ledger.Progress, time.Time, error) {
	s.reads++
	return s.Store.Progress(ctx)
}

func (s *countedStore) Repository(ctx context.Context, name string) (*ledger.Repository, error) {
	s.reads++
	return s.Store.Repository(ctx, name)
}

func (s *countedStore) Commit(ctx context.Context, b ledger.Batch) error {
	s.writes += len(b.Tags) + len(b.Promotions) + len(b.Repositories)
	if b.Progress != nil {
		s.writes++
	}
	return s.Store.Commit(ctx, b)
}

func (s *countedStore) Due(ctx context.Context, t time.Time, limit int) ([]*ledger.Promotion, error) {
	found, err := s.Store.Due(ctx, t, limit)
	s.reads += max(1, len(found))
	return found, err
}

func (s *countedStore) Unheard(ctx context.Context, t time.Time, limit int) ([]*ledger.Promotion, error) {
	found, err := s.Store.Unheard(ctx, t, limit)
	s.reads += max(1, len(found))
	return found, err
}

func (s *countedStore) Overdue(ctx context.Context, t time.Time, limit int) ([]*ledger.Tag, error) {
	found, err := s.Store.Overdue(ctx, t, limit)
	s.reads += max(1, len(found))
	return found, err
}

// countedHub is a namespace without an audit log, and the registry.
type countedHub struct {
	repositories []string
	tags         []string
	pushedAt     time.Time
	pages, heads int
}

func (h *countedHub) Pushes(context.Context, string, time.Time, time.Time, string) (hub.Page[hub.Push], error) {
	h.pages++
	return hub.Page[hub.Push]{}, &hub.Error{Reason: hub.NoAuditLog, Cause: hub.ErrNoAuditLog}
}

func (h *countedHub) Repositories(context.Context, string, string) (p hub.Page[hub.Repository], err error) {
	h.pages++
	for _, name := range h.repositories {
		p.Items = append(p.Items, hub.Repository{Name: name})
	}
	return p, nil
}

func (h *countedHub) Tags(context.Context, string, time.Time, string) (p hub.Page[hub.Tag], err error) {
	h.pages++
	for _, tag := range h.tags {
		p.Items = append(p.Items, hub.Tag{Name: tag, PushedAt: h.pushedAt})
	}
	return p, nil
}

func (h *countedHub) Tag(context.Context, string, string) (hub.Tag, error) {
	h.pages++
	return hub.Tag{}, nil
}

func (h *countedHub) Digest(context.Context, string, string) (string, error) {
	h.heads++
	return "sha256:" + strings.Repeat("a", 64), nil
}

func TestReconcilingCostsWhatTheSumsSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const repositories = 10
		outside := &countedHub{}
		for i := range repositories {
			outside.repositories = append(outside.repositories, fmt.Sprintf("acme/image-%d", i))
		}
		routes, err := route.Parse(`{"acme/*": {"gitlab": {"project": "acme/images/{name}"}, "slack": {"channel": "C0123456789"}}}`)
		if err != nil {
			t.Fatal(err)
		}
		store := &countedStore{Store: ledger.NewMemory()}
		promotions := ledger.New(store)
		instance := func() http.Handler {
			return trigger.New(trigger.Trigger{
				Routes: routes, Promotions: promotions, Images: outside, Hub: outside,
				APITokens: trigger.Tokens{"*": env.NewSecret("glpat-0123456789")},
			}, slog.New(slog.DiscardHandler))
		}
		call := func(to http.Handler) {
			t.Helper()
			time.Sleep(5 * time.Minute)
			answer := httptest.NewRecorder()
			to.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/reconcile", nil))
			if answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), `"found":0`) {
				t.Fatalf("%d %s", answer.Code, answer.Body)
			}
		}
		costs := func(what string, reads, writes, pages, heads int) {
			t.Helper()
			got, want := [4]int{store.reads, store.writes, outside.pages, outside.heads}, [4]int{reads, writes, pages, heads}
			if got != want {
				t.Errorf("%s: reads, writes, pages and HEADs are %v, the sums say %v", what, got, want)
			}
			store.reads, store.writes, outside.pages, outside.heads = 0, 0, 0, 0
		}
		const round = repositories + 2

		first := instance()
		call(first) // sees the repositories for the first time
		store.reads, store.writes, outside.pages = 0, 0, 0
		call(first)
		costs("nothing to do", readsOfCall, writesOfCall, round, 0)

		outside.tags, outside.pushedAt = []string{"1.0.0", "1.0.1", "1.0.2"}, time.Now()
		const pushes = repositories * pushesOfRepository
		if len(outside.tags) != pushesOfRepository {
			t.Fatalf("%d pushes of a repository", len(outside.tags))
		}
		time.Sleep(time.Second)
		for _, repository := range outside.repositories {
			for _, tag := range outside.tags {
				promoted(t, promotions, repository, tag)
			}
		}
		store.reads, store.writes = 0, 0
		for range 2 * 12 {
			call(first)
		}
		costs("two hours with pushes that webhooks told of", 24*readsOfCall+pushes*readsOfPush, 24*writesOfCall+pushes*writesOfPush, 24*round, pushes)

		call(instance())
		costs("a new instance", readsOfCall+pushes*readsAnewOfPush, writesOfCall, round, 0)

		if due, err := promotions.Due(t.Context(), 10); err != nil || len(due) > 0 {
			t.Fatal(due, err)
		}
		costs("a tick", readsOfTick, 0, 0, 0)
	})
}

// promoted is a push with a webhook, whose promotion is done and shown.
func promoted(t *testing.T, promotions *ledger.Ledger, repository, tag string) {
	t.Helper()
	now := time.Now()
	snapshot, err := promotions.Read(t.Context(), ledger.Key{Repository: repository, Tag: tag})
	if err != nil {
		t.Fatal(err)
	}
	d, err := snapshot.Settle(t.Context(), ledger.Look{
		Message: ledger.Message{ID: repository + tag, QueuedAt: now, PushedAt: now, ReceivedAt: now},
		Route:   "acme/*", NewID: ledger.NewID(), Lease: time.Minute, Digest: "sha256:" + strings.Repeat("a", 64),
	})
	if err != nil || d.Verdict != ledger.Start {
		t.Fatal(d.Verdict, err)
	}
	err = promotions.Answered(t.Context(), d.Claim, ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 42, ID: 1, URL: "https://gitlab.example/p"}})
	if err != nil {
		t.Fatal(err)
	}
	slack := ledger.Outboxes{Lease: time.Minute, SilentAfter: time.Hour}
	out, err := promotions.Report(t.Context(), d.Claim.ID, ledger.Report{State: ledger.Promoted}, slack)
	if err != nil || out.Showing == nil {
		t.Fatal(out.Showing, err)
	}
	shown := ledger.Result{Channel: "C0123456789", TS: "1700000000.000100", Message: true, Reply: true}
	if _, err := promotions.Shown(t.Context(), *out.Showing, shown, slack); err != nil {
		t.Fatal(err)
	}
}
