package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/getto-systems/hubrelay/functions/notify"
	"github.com/getto-systems/hubrelay/functions/webhook"
	"github.com/getto-systems/hubrelay/internal/check"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/gcptest"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
	"github.com/getto-systems/hubrelay/internal/hub/hubtest"
	"github.com/getto-systems/hubrelay/internal/ledger"
	"github.com/getto-systems/hubrelay/internal/skip"
	"github.com/getto-systems/hubrelay/internal/slack/slacktest"
)

// The stories are in testdata/script, one per file. They show how people use
// the command, in the language of
// https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript. In addition to
// the commands of testscript they have
//
//	waitfor FILE REGEXP    wait until a file matches; each named group of the
//	                       expression becomes a variable
//	sandbox push IMAGE     push an image to the system that runs at $URL
//	sandbox fault STAGE ANSWER
//	                       have something go wrong there once: hub lost, gitlab
//	                       not_found, pipeline fails
//	hub start              start a Docker Hub and a registry that no system knows:
//	                       HUB_URL and REGISTRY name them
//	hub push IMAGE [TIME]  push an image there, now or at a time in RFC 3339
//	pubsub [FILE]          start a Pub/Sub that PUBSUB_EMULATOR_HOST names, with the
//	                       topic TOPIC, and dead letters of the file: JSON, as in letter
//	queued                 write what was queued in TOPIC
//	gitlab start TOKEN     start a GitLab that GITLAB_URL names. Its project
//	                       acme/images/api has this trigger token
//	gitlab access TOKEN    give it an access token with read_api
//	slack start TOKEN      start a Slack that SLACK_API_URL names, with a bot of this
//	                       token in the channel C0123456789
//	functions FILE         start Webhook and Notify, with the settings of a file and
//	                       then of the story, and a Trigger that turns strangers
//	                       away: WEBHOOK_URL, NOTIFY_URL and TRIGGER_URL name them
//	silence                listen at an address, SILENT, where nobody answers
//	needs TOOL …           skip the story where a tool is not in .tools; for terraform,
//	                       where it cannot init the folder terraform
//
// and the programs
//
//	ends CODE COMMAND …    run a command, which has to end with a code
//	plain COMMAND …        run a command, and replace what differs each time in what it
//	                       writes: tokens, addresses, the story's folder, the version
//	into FILE COMMAND …    run a command with its output in a file, which waitfor
//	                       reads, and interrupt it together with its children
//	mistakes FILE          run the commands of a file, and show what each writes
//	sorted COMMAND …       run a command, and sort the rows of the table that it shows
//	go                     stands in for go run ./cmd/hubrelay
//	ledger …               write what the ledger that LEDGER names shall know:
//	  promotion IMAGE STATE AGO [DIGEST]   a promotion, in a state since some time
//	  release REPOSITORY AGO               a release, some time ago
//	  asked KEY …                          that Docker Hub was asked, by these routes
//
// REPOSITORY is the directory of the project. No story sleeps: it waits for
// what it needs.

// storyTime bounds what a story waits for, on a busy machine.
const storyTime = time.Minute

var update = flag.Bool("update", false, "write what the stories and docs/cli.md show")

func TestMain(m *testing.M) {
	// Stories wait most of the time, whatever the number of processors.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){"hubrelay": main, "into": into, "ledger": writeLedger})
}

// TestStories runs the stories that need only this machine.
func TestStories(t *testing.T) {
	t.Parallel()
	runStories(t, "testdata/script", nil)
}

// TestStoriesOfTheLedger runs those that need Firestore. Each has a database of
// its own.
func TestStoriesOfTheLedger(t *testing.T) {
	t.Parallel()
	host := gcptest.Firestore(t)
	runStories(t, "testdata/script/ledger", map[string]string{"FIRESTORE_EMULATOR_HOST": host})
}

func runStories(t *testing.T, dir string, env map[string]string) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("REPOSITORY", root)
			e.Setenv("PATH", filepath.Join(root, "cmd/hubrelay/testdata/bin")+string(os.PathListSeparator)+e.Getenv("PATH"))
			for name, value := range env {
				e.Setenv(name, value)
			}
			for _, variable := range os.Environ() { // such as where Terraform finds its providers
				if name, value, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "TF_CLI_") || strings.HasPrefix(name, "TF_PLUGIN_") {
					e.Setenv(name, value)
				}
			}
			e.Setenv("LEDGER", "firestore:projects/demo/databases/"+strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"))
			e.Values[storyKey{}] = &story{t: e.T().(testing.TB)}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfor": waitFor, "sandbox": tellSandbox, "hub": tellHub, "pubsub": startPubSub, "queued": showQueued, "silence": beSilent, "needs": needs,
			"gitlab": tellGitLab, "slack": startSlack, "functions": startFunctions,
		},
	})
}

// story is what the commands of one story share.
type story struct {
	t      testing.TB
	hub    *elsewhere
	gitlab *gitlabtest.Server
	pushes *pstest.Server
}

type storyKey struct{}

func of(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// require fails a story that uses a command wrongly.
func require(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// endedEarly is what into adds to the output of a command that failed.
const endedEarly = "into: the command failed:"

// into is the program of that name. If it is not stopped, it ends by itself.
func into() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	file, err := os.Create(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cmd := exec.CommandContext(ctx, os.Args[2], os.Args[3:]...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = storyTime
	err = cmd.Run()
	var ended *exec.ExitError
	switch {
	case errors.Is(err, context.Canceled) && cmd.ProcessState.Success():
	case errors.As(err, &ended) && ctx.Err() != nil && ended.Sys().(syscall.WaitStatus).Signal() == syscall.SIGINT: // as make ends
	case err != nil:
		fmt.Fprintln(file, endedEarly, err)
		os.Exit(1)
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) == 2, "waitfor FILE REGEXP")
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	var text []byte
	for end := time.Now().Add(storyTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		text, _ = os.ReadFile(ts.MkAbs(args[0])) // it may not be there yet
		if m := want.FindSubmatch(text); m != nil {
			for i, group := range want.SubexpNames() {
				if group != "" {
					ts.Setenv(group, string(m[i]))
				}
			}
			return
		}
		if bytes.Contains(text, []byte(endedEarly)) {
			break
		}
	}
	ts.Fatalf("%s does not come:\n%s", args[1], text)
}

// tellSandbox uses the sandbox's HTTP API, and is the only one that does.
func tellSandbox(ts *testscript.TestScript, neg bool, args []string) {
	var path string
	var form url.Values
	switch {
	case len(args) == 2 && args[0] == "push":
		path, form = "/api/push", url.Values{"image": {args[1]}}
	case len(args) == 3 && args[0] == "fault":
		path, form = "/api/faults", url.Values{"stage": {args[1]}, "answer": {args[2]}, "times": {"1"}}
	}
	require(ts, !neg && path != "", "sandbox push IMAGE | fault STAGE ANSWER")
	res, err := http.PostForm(ts.Getenv("URL")+path, form)
	ts.Check(err)
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode/100 != 2 {
		ts.Fatalf("the sandbox answers %s: %s", res.Status, body)
	}
}

func beSilent(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) == 0, "silence")
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections, and never answers
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
	ts.Setenv("SILENT", listener.Addr().String())
}

func needs(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) > 0, "needs TOOL …")
	for _, tool := range args {
		if tool == "terraform" {
			init := exec.Command(tool, "-chdir="+ts.MkAbs("terraform"), "init", "-input=false")
			if out, err := init.CombinedOutput(); err != nil {
				skip.UnlessCI(of(ts).t, fmt.Sprintf("what is deployed with Terraform: there is no terraform, or its providers could not be had: %v %s", err, out))
			}
			continue
		}
		if _, err := os.Stat(filepath.Join(ts.Getenv("REPOSITORY"), ".tools", tool)); err != nil {
			skip.UnlessCI(of(ts).t, tool+" is not in .tools: run make tools")
		}
	}
}

// elsewhere is a Docker Hub and its registry, which are not the sandbox's.
type elsewhere struct {
	hub      *hubtest.Server
	api      string
	registry string
}

// push pushes an image that is the same each time.
func (e elsewhere) push(image string, at time.Time) (digest string, err error) {
	ref, err := name.ParseReference(strings.TrimPrefix(e.registry, "http://")+"/"+image, name.Insecure)
	if err != nil {
		return "", err
	}
	one := mutate.Annotations(empty.Image, map[string]string{"image": image}).(v1.Image)
	if err := remote.Write(ref, one); err != nil {
		return "", err
	}
	hash, err := one.Digest()
	if err != nil {
		return "", err
	}
	repository, tag, _ := strings.Cut(image, ":")
	// The API's digest is that of one platform.
	e.hub.Push(hubtest.Push{Repository: repository, Tag: tag, Digest: "sha256:" + strings.Repeat("0", 64), At: at})
	return hash.String(), nil
}

func tellHub(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	require(ts, !neg && len(args) > 0 && (args[0] == "start" || args[0] == "push" && len(args) > 1 && s.hub != nil), "hub start | push IMAGE [TIME]")
	if args[0] == "start" {
		images := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
		ts.Defer(images.Close)
		hub := hubtest.New()
		api := httptest.NewServer(hub)
		ts.Defer(api.Close)
		s.hub = &elsewhere{hub, api.URL, images.URL}
		ts.Setenv("HUB_URL", api.URL)
		ts.Setenv("REGISTRY", images.URL)
		return
	}
	at := time.Now()
	if len(args) > 2 {
		var err error
		at, err = time.Parse(time.RFC3339, args[2])
		ts.Check(err)
	}
	digest, err := s.hub.push(args[1], at)
	ts.Check(err)
	ts.Setenv("DIGEST", digest)
}

// serve runs a server until the story ends, and sets a variable to its URL.
func serve(ts *testscript.TestScript, variable string, handler func(url string) http.Handler) {
	server := httptest.NewUnstartedServer(nil)
	url := "http://" + server.Listener.Addr().String()
	server.Config.Handler = handler(url)
	server.Start()
	ts.Defer(server.Close)
	ts.Setenv(variable, url)
}

func tellGitLab(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	require(ts, !neg && len(args) == 2 && (args[0] == "start" || args[0] == "access" && s.gitlab != nil), "gitlab start TOKEN | access TOKEN")
	if args[0] == "access" {
		s.gitlab.AddAccessToken(gitlabtest.AccessToken{Token: args[1], Scopes: []string{"read_api"}, Maintainer: true})
		return
	}
	serve(ts, "GITLAB_URL", func(url string) http.Handler {
		s.gitlab = gitlabtest.New(url)
		s.gitlab.AddProject(gitlabtest.Project{ID: 7, Path: "acme/images/api", Token: args[1], VariablesRole: gitlabtest.RoleNoOne})
		return s.gitlab
	})
}

func startSlack(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) == 2 && args[0] == "start", "slack start TOKEN")
	serve(ts, "SLACK_API_URL", func(string) http.Handler {
		fake := slacktest.New(args[1])
		fake.AddChannel("C0123456789", "images")
		return fake
	})
	ts.Setenv("SLACK_API_URL", ts.Getenv("SLACK_API_URL")+"/")
}

// nowhere accepts everything that is published.
type nowhere struct{}

func (nowhere) Publish(context.Context, []byte, map[string]string) (string, error) { return "1", nil }

func startFunctions(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) == 1, "functions FILE")
	file, _, err := check.ParseEnv(ts.ReadFile(args[0]))
	ts.Check(err)
	getenv := func(name string) string { return cmp.Or(ts.Getenv(name), file[name]) }
	w, err := webhook.ReadSettings(getenv)
	ts.Check(err)
	n, err := notify.ReadSettings(getenv)
	ts.Check(err)
	quiet := slog.New(slog.DiscardHandler)
	serve(ts, "WEBHOOK_URL", func(string) http.Handler { return webhook.New(w.Tokens, nowhere{}, quiet) })
	serve(ts, "NOTIFY_URL", func(string) http.Handler { return notify.New(n.Notify, quiet) })
	serve(ts, "TRIGGER_URL", func(string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Forbidden", http.StatusForbidden) })
	})
}

// The names that terraform/ gives.
const (
	storyTopic   = "projects/demo/topics/hubrelay-pushes"
	storyLetters = "projects/demo/topics/hubrelay-dead-letters"
)

// letter is a dead letter, which died at a moment or some time ago.
type letter struct {
	Image      string            `json:"image"` // "": it is no push
	At         time.Time         `json:"at"`
	Ago        string            `json:"ago"`
	Attributes map[string]string `json:"attributes"`
}

func startPubSub(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	require(ts, !neg && len(args) < 2, "pubsub [FILE]")
	s.pushes = pstest.NewServer()
	ts.Defer(func() { _ = s.pushes.Close() })
	ts.Setenv("PUBSUB_EMULATOR_HOST", s.pushes.Addr)
	ts.Setenv("TOPIC", storyTopic)
	ctx := context.Background()
	for _, topic := range []string{storyTopic, storyLetters} {
		_, err := s.pushes.GServer.CreateTopic(ctx, &pubsubpb.Topic{Name: topic})
		ts.Check(err)
	}
	_, err := s.pushes.GServer.CreateSubscription(ctx, &pubsubpb.Subscription{Name: strings.Replace(storyLetters, "/topics/", "/subscriptions/", 1), Topic: storyLetters})
	ts.Check(err)
	if len(args) == 0 {
		return
	}
	var letters []letter
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	decoder.DisallowUnknownFields()
	ts.Check(decoder.Decode(&letters))
	now := time.Now
	for _, l := range letters {
		at := l.At
		if ago, err := time.ParseDuration(l.Ago); l.Ago != "" {
			ts.Check(err)
			at = time.Now().Add(-ago)
		} else {
			now = func() time.Time { return at } // pstest forgets what is ten minutes old
		}
		data := []byte("no push")
		if l.Image != "" {
			repository, tag, err := dockerhub.SplitImage(l.Image)
			ts.Check(err)
			data = fmt.Appendf(nil, `{"id":%q,"repository":%q,"tag":%q}`, tag, repository, tag)
		}
		s.pushes.SetTimeNowFunc(func() time.Time { return at })
		s.pushes.Publish(storyLetters, data, l.Attributes)
	}
	s.pushes.SetTimeNowFunc(now)
}

func showQueued(ts *testscript.TestScript, neg bool, args []string) {
	require(ts, !neg && len(args) == 0, "queued")
	out := ts.Stdout()
	for _, m := range of(ts).pushes.Messages() {
		if m.Topic != storyTopic {
			continue
		}
		push, err := dockerhub.Decode(m.Data)
		ts.Check(err)
		fmt.Fprintf(out, "%s:%s", push.Repository, push.Tag)
		if source := m.Attributes["source"]; source != "" {
			fmt.Fprintf(out, " source=%s", source)
		}
		if m.Attributes["replayed_at"] != "" {
			fmt.Fprint(out, " replayed")
		}
		fmt.Fprintln(out)
	}
}

// writeLedger is the program ledger.
func writeLedger() {
	if err := addToLedger(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(1)
	}
}

func addToLedger(ctx context.Context, args []string) error {
	name := os.Getenv("LEDGER")
	l, err := ledger.Open(name)
	if err != nil {
		return err
	}
	var id, ago string
	switch {
	case len(args) >= 4 && args[0] == "promotion":
		ago = args[3]
		repository, tag, err := dockerhub.SplitImage(args[1])
		if err != nil {
			return err
		}
		digest := "sha256:" + strings.Repeat("a", 64)
		if len(args) > 4 {
			digest = args[4]
		}
		if id, err = promote(ctx, l, ledger.Key{Repository: repository, Tag: tag}, args[2], digest); err != nil {
			return err
		}
	case len(args) == 3 && args[0] == "release":
		id, ago = ledger.NewID(), args[2]
		note := ledger.Promotion{ID: id, Event: ledger.Release, Key: ledger.Key{Repository: args[1]}, State: ledger.Promoted, Version: "1.0"}
		if _, err := l.Note(ctx, note, ledger.Outboxes{Lease: time.Minute}); err != nil {
			return err
		}
	case len(args) > 1 && args[0] == "asked":
		rules := map[string]string{}
		for _, key := range args[1:] {
			rules[key] = "[]"
		}
		p, err := l.Resume(ctx, time.Minute, rules)
		if err != nil {
			return err
		}
		return l.Pause(ctx, p, 0)
	default:
		return errors.New("usage: ledger promotion IMAGE STATE AGO [DIGEST] | release REPOSITORY AGO | asked KEY …")
	}
	since, err := time.ParseDuration(ago)
	if err != nil {
		return err
	}
	return backdate(ctx, name, id, since)
}

// promote creates a promotion, and brings it to a state by the rules of the
// ledger.
func promote(ctx context.Context, l *ledger.Ledger, key ledger.Key, state, digest string) (id string, err error) {
	m := ledger.Message{ID: "id-" + key.Tag, QueuedAt: time.Now(), ReceivedAt: time.Now()}
	look := ledger.Look{Message: m, Route: "acme/*", NewID: ledger.NewID(), Lease: time.Minute, Digest: digest}
	if state == "waiting" {
		look.Digest, look.Reason, look.Hint = "", "registry_denied", "Let the account read the repository."
	}
	s, err := l.Read(ctx, key)
	if err != nil {
		return "", err
	}
	d, err := s.Settle(ctx, look)
	if err != nil || state == "waiting" || state == "starting" {
		return look.NewID, err
	}
	answer := ledger.Answer{Message: m, Dead: true, Reason: "not_found", Hint: "Check the project path.", Words: "404 Not Found"}
	if state != "dead" {
		answer = ledger.Answer{Created: true, Pipeline: ledger.Pipeline{ProjectID: 7, ID: 42, URL: "https://gitlab.example/p/" + key.Tag}}
	}
	if err := l.Answered(ctx, d.Claim, answer); err != nil {
		return "", err
	}
	o := ledger.Outboxes{Lease: time.Minute, SilentAfter: time.Nanosecond}
	switch state {
	case "dead", "triggered":
		return look.NewID, nil
	case silent:
		_, err := l.Tick(ctx, look.NewID, o)
		return look.NewID, err
	}
	out, err := l.Report(ctx, look.NewID, ledger.Report{State: ledger.State(state)}, o)
	if err == nil && state == "promoted" { // and Slack shows it
		_, err = l.Shown(ctx, *out.Showing, ledger.Result{Channel: "C0IMAGES", TS: "1.000001", Message: true, Reply: true}, o)
	}
	return look.NewID, err
}

// backdate sets since when a promotion is in its state, because the ledger's
// clock is Firestore's.
func backdate(ctx context.Context, database, id string, ago time.Duration) error {
	parts := strings.Split(database, "/") // firestore:projects/P/databases/D
	client, err := firestore.NewClientWithDatabase(ctx, parts[1], parts[3])
	if err != nil {
		return err
	}
	defer client.Close()
	doc := client.Collection("promotions").Doc(id)
	found, err := doc.Get(ctx)
	if err != nil {
		return err
	}
	at := time.Now().Add(-ago)
	updates := []firestore.Update{{Path: "created_at", Value: at}, {Path: "record.created_at", Value: at}, {Path: "record.updated_at", Value: at}}
	if since, err := found.DataAt("record.outbox.waits_since"); err != nil {
		return err
	} else if !since.(time.Time).IsZero() {
		updates = append(updates, firestore.Update{Path: "record.outbox.waits_since", Value: at})
	}
	_, err = doc.Update(ctx, updates)
	return err
}
