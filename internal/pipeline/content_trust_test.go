package pipeline

import (
	"encoding/base64"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getto-systems/hubrelay/internal/skip"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// The shells of the images in which people run jobs.
var shells = map[string][]string{
	"sh":          {"sh"},
	"busybox ash": {"busybox", "ash"},
}

// eachShell runs test in every shell.
func eachShell(t *testing.T, test func(t *testing.T, shell []string)) {
	for _, name := range slices.Sorted(maps.Keys(shells)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(shells[name][0]); err != nil {
				skip.UnlessCI(t, name+" is not installed")
			}
			test(t, shells[name])
		})
	}
}

// A trustJob runs the functions of content-trust.sh, one process a call, as jobs of
// one runner that keeps its directory.
type trustJob struct {
	shell     []string
	env       map[string]string
	bin, work string
	arguments string
}

func newJob(t *testing.T, shell []string) *trustJob {
	t.Helper()
	j := &trustJob{shell: shell, bin: t.TempDir(), work: t.TempDir()}
	j.arguments = filepath.Join(j.work, "arguments")
	// This script wraps the real client, and records its arguments.
	j.program(t, "notary", `printf '%s\n' "$@" >> "$ARGUMENTS"; exec "$NOTARY" "$@"`)
	// What must not count: settings of whoever owns the machine.
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".notary"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(home, ".notary", "config.json"), `{"remote_server": {"skipTLSVerify": true}}`)
	j.env = map[string]string{
		"PATH":      j.bin + string(os.PathListSeparator) + os.Getenv("PATH"),
		"HOME":      home,
		"ARGUMENTS": j.arguments,
		"NOTARY":    notaryTool(t, "notary"),
		"work":      j.work,
		"IMAGE":     "docker.io/acme/api",
		"TAG":       "1.4.0",
		"DIGEST":    digestA,
		"SIZE":      "1234",

		"CI_PIPELINE_URL": "https://gitlab.example/acme/images/api/-/pipelines/1",
	}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(j.work, "pwned")); err == nil {
			t.Error("a value was run as code")
		}
	})
	return j
}

// jobWith returns a job that can sign image on server.
func jobWith(t *testing.T, shell []string, server *notaryServer, image string) *trustJob {
	t.Helper()
	j := newJob(t, shell)
	j.env["IMAGE"] = image
	j.env["DOCKER_CONTENT_TRUST_SERVER"] = server.url
	j.env["NOTARY_CA_FILE"] = server.ca
	j.env["NOTARY_KEY_FILE"] = server.init(t, image)
	j.env["NOTARY_TARGETS_PASSPHRASE"] = targetsPassphrase
	return j
}

// program puts a shell script on the job's PATH.
func (j *trustJob) program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(j.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// call returns the exit code of a function, and its output.
func (j *trustJob) call(t *testing.T, function string) (int, string) {
	t.Helper()
	// Inlined and under set -eu, as in a job. Read here, so that the cache of go
	// test knows of it.
	script := "set -eu\n" + read(t, "content-trust.sh") + `own=""; code=0; "$1" || code=$?; printf %s "$own" > "$work/own"; exit "$code"`
	args := append(slices.Clone(j.shell[1:]), "-c", script, "job", function)
	cmd := exec.Command(j.shell[0], args...)
	cmd.Dir = j.work
	for name, value := range j.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	arguments, err := os.ReadFile(j.arguments)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"output": string(out), "command line": string(arguments)} {
		if strings.Contains(text, "canary") {
			t.Errorf("a secret stands in the %s of %s:\n%s", what, function, text)
		}
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// want calls a function, and expects an exit code and a word in its output.
func (j *trustJob) want(t *testing.T, function string, code int, says string) {
	t.Helper()
	got, out := j.call(t, function)
	if got != code || !strings.Contains(out, says) {
		t.Errorf("%s of %s:%s %.14s ended with %d, want %d and %q; it said:\n%s",
			function, j.env["IMAGE"], j.env["TAG"], j.env["DIGEST"], got, code, says, out)
	}
	if says == "" && out != "" {
		t.Errorf("%s said:\n%s", function, out)
	}
}

const (
	guard  = "content_trust_guard"
	signed = "content_trust_signed"
	sign   = "content_trust_sign"

	yes   = 0
	no    = 10
	doubt = 1
)

func TestContentTrustSigns(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		j := jobWith(t, shell, server, "docker.io/acme/api")

		j.want(t, guard, 0, "")
		j.want(t, signed, no, "")
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")
		listed(t, server, j.env["IMAGE"], "1.4.0 "+digestA[7:]+" 1234 targets")

		// Another tag of the same image has its own signature.
		j.env["TAG"] = "latest"
		j.want(t, signed, no, "")
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")

		// A tag that was built again, and then signed again.
		j.env["TAG"], j.env["DIGEST"], j.env["SIZE"] = "1.4.0", digestB, "987654"
		j.want(t, signed, no, "")
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")
		listed(t, server, j.env["IMAGE"],
			"1.4.0 "+digestB[7:]+" 987654 targets",
			"latest "+digestA[7:]+" 1234 targets")

		j.env["SIZE"] = "987655"
		j.want(t, signed, no, "")
	})
}

// listed compares the list of the root key's owner with rows of NAME DIGEST
// SIZE ROLE. Its client has known the root from the beginning.
func listed(t *testing.T, server *notaryServer, image string, rows ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(server.run(t, "list", image)) {
		if fields := strings.Fields(line); len(fields) == 4 && len(fields[1]) == 64 {
			got = append(got, strings.Join(fields, " "))
		}
	}
	if !slices.Equal(got, rows) {
		t.Errorf("the server has %q, want %q", got, rows)
	}
}

func TestContentTrustSignsWithASnapshotKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		j := newJob(t, shell)
		j.env["DOCKER_CONTENT_TRUST_SERVER"] = server.url
		j.env["NOTARY_CA_FILE"] = server.ca
		j.env["NOTARY_TARGETS_PASSPHRASE"] = targetsPassphrase
		server.run(t, "init", "-p", j.env["IMAGE"])
		targets, snapshot := read(t, server.export(t, "targets", j.env["IMAGE"])), read(t, server.export(t, "snapshot", j.env["IMAGE"]))
		j.env["NOTARY_KEY_FILE"] = filepath.Join(t.TempDir(), "both.pem")
		write(t, j.env["NOTARY_KEY_FILE"], targets+snapshot)

		j.want(t, guard, 1, "NOTARY_SNAPSHOT_PASSPHRASE is missing")
		j.env["NOTARY_SNAPSHOT_PASSPHRASE"] = snapshotPassphrase
		j.want(t, guard, 0, "")
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")

		// Without it, nothing can be signed.
		write(t, j.env["NOTARY_KEY_FILE"], targets)
		j.env["TAG"] = "1.4.1"
		j.want(t, sign, 1, "could not be signed")
		j.want(t, signed, no, "")
	})
}

func TestContentTrustKnowsItsOwnSignature(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		j := jobWith(t, shell, server, "docker.io/acme/api")
		own := func(want string) {
			t.Helper()
			j.want(t, signed, yes, "")
			if got := read(t, filepath.Join(j.work, "own")); got != want {
				t.Errorf("own is %q, want %q, of %v", got, want, j.env)
			}
		}
		one := j.env["CI_PIPELINE_URL"]
		j.want(t, sign, 0, "")
		own("yes")
		j.env["CI_PIPELINE_URL"] = one + "2"
		own("")
		j.env["CI_PIPELINE_URL"] = one[:len(one)-1]
		own("")

		// A tag that another pipeline has signed since no longer counts as its
		// own.
		j.env["DIGEST"] = digestB
		j.want(t, sign, 0, "")
		own("yes")
		j.env["CI_PIPELINE_URL"] = one
		own("")
		j.env["DIGEST"] = digestA
		j.want(t, signed, no, "")

		// People sign by hand, too.
		server.run(t, "addhash", "-p", "--sha256", digestA[7:], j.env["IMAGE"], "by-hand", "1234")
		j.env["TAG"] = "by-hand"
		own("")
		j.env["CI_PIPELINE_URL"] = ""
		own("")
		j.env["TAG"] = "by-nobody"
		j.want(t, sign, 0, "")
		own("")
	})
}

func TestContentTrustOnAServerWithALogin(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startPrivateNotary(t, "ci", "canary-password")
		j := jobWith(t, shell, server, "docker.io/acme/api")
		for _, auth := range []string{"", "canary", base64.StdEncoding.EncodeToString([]byte("ci:canary-but-wrong"))} {
			j.env["NOTARY_AUTH"] = auth
			j.want(t, signed, doubt, "it is not known")
			j.want(t, sign, 1, "could not be signed")
		}
		listed(t, server, j.env["IMAGE"])
		j.env["NOTARY_AUTH"] = server.auth
		j.want(t, signed, no, "")
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")
		listed(t, server, j.env["IMAGE"], "1.4.0 "+digestA[7:]+" 1234 targets")
	})
}

func TestContentTrustSignsTagsAtOnce(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		first := jobWith(t, shell, server, "docker.io/acme/api")
		var rows []string
		t.Run("tags", func(t *testing.T) {
			for _, tag := range []string{"1.4.0", "1.4.1", "1.4.2"} {
				rows = append(rows, tag+" "+digestA[7:]+" 1234 targets")
				t.Run(tag, func(t *testing.T) {
					t.Parallel()
					j := newJob(t, shell)
					for _, name := range []string{"DOCKER_CONTENT_TRUST_SERVER", "NOTARY_CA_FILE", "NOTARY_KEY_FILE", "NOTARY_TARGETS_PASSPHRASE"} {
						j.env[name] = first.env[name]
					}
					j.env["TAG"] = tag
					j.want(t, sign, 0, "")
				})
			}
		})
		listed(t, server, first.env["IMAGE"], rows...)
	})
}

// A fake client gives the server's answer to the second of two writers.
func TestContentTrustTriesAgainWhenRejected(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		j := jobWith(t, shell, server, "docker.io/acme/api")
		j.program(t, "sleep", `echo slept >> "$work/slept"`)
		j.program(t, "notary", `case " $* " in *" addhash "*) [ -e "$work/slept" ] || { echo "* fatal: trust server rejected operation."; exit 1; } ;; esac; exec "$NOTARY" "$@"`)
		j.want(t, sign, 0, "")
		j.want(t, signed, yes, "")
		if got := read(t, filepath.Join(j.work, "slept")); got != "slept\n" {
			t.Errorf("it waited:\n%s", got)
		}

		j.program(t, "notary", `case " $* " in *" addhash "*) echo "* fatal: trust server rejected operation."; exit 1 ;; esac; exec "$NOTARY" "$@"`)
		j.want(t, sign, 1, "trust server rejected operation")
		if got := strings.Count(read(t, filepath.Join(j.work, "slept")), "slept"); got != 1+5 {
			t.Errorf("it waited %d times", got)
		}
	})
}

func TestContentTrustDoubts(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		t.Run("a server that died after it said yes", func(t *testing.T) {
			t.Parallel()
			server := startNotary(t)
			j := jobWith(t, shell, server, "docker.io/acme/api")
			j.want(t, sign, 0, "")
			j.want(t, signed, yes, "")
			listed(t, server, j.env["IMAGE"], "1.4.0 "+digestA[7:]+" 1234 targets")
			server.stop()

			// This is the trap: the client still confirms it, from its cache.
			if out, err := server.try("lookup", j.env["IMAGE"], "1.4.0"); err != nil || !strings.Contains(out, digestA) {
				t.Fatalf("a warm client without its server says %v:\n%s", err, out)
			}
			j.want(t, signed, doubt, "it is not known")
			j.env["TAG"] = "1.4.1"
			j.want(t, signed, doubt, "it is not known")
			j.want(t, sign, 1, "could not be signed")
		})
		t.Run("a server of another CA", func(t *testing.T) {
			t.Parallel()
			j := jobWith(t, shell, startNotary(t), "docker.io/acme/api")
			j.want(t, sign, 0, "")
			dir := t.TempDir()
			writeTLS(t, dir)
			j.env["NOTARY_CA_FILE"] = filepath.Join(dir, "ca.crt")
			j.want(t, signed, doubt, "x509: certificate signed by unknown authority")
			j.want(t, sign, 1, "could not be signed")
			delete(j.env, "NOTARY_CA_FILE")
			j.want(t, signed, doubt, "x509: certificate signed by unknown authority")
		})
		for name, answer := range map[string]int{"nothing": http.StatusNotFound, "a failure": http.StatusServiceUnavailable, "a web page": http.StatusOK} {
			t.Run("a server that answers with "+name, func(t *testing.T) {
				t.Parallel()
				j := jobWith(t, shell, startNotary(t), "docker.io/acme/api")
				dir := t.TempDir()
				writeTLS(t, dir)
				j.env["NOTARY_CA_FILE"] = filepath.Join(dir, "ca.crt")
				j.env["DOCKER_CONTENT_TRUST_SERVER"] = serveTLS(t, loadCertificate(t, dir), func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(answer)
					_, _ = w.Write([]byte("<html>"))
				})
				j.want(t, signed, doubt, "it is not known")
				j.want(t, sign, 1, "could not be signed")
			})
		}
		t.Run("an image that was never initialised", func(t *testing.T) {
			t.Parallel()
			server := startNotary(t)
			j := jobWith(t, shell, server, "docker.io/acme/api")
			j.env["IMAGE"] = "docker.io/acme/web"
			j.want(t, signed, doubt, "notary -s "+server.url+" init -p docker.io/acme/web")
			j.want(t, sign, 1, "could not be signed")
			j.want(t, signed, doubt, "was never initialised")
		})
		// The server here cannot keep delegations: built with Go 1.17 or later, it
		// reads the name of a delegation as the last part of a path. So the client
		// is a fake that leaves what the real one would.
		t.Run("an image with delegations", func(t *testing.T) {
			t.Parallel()
			j := jobWith(t, shell, startNotary(t), "docker.io/acme/api")
			j.want(t, sign, 0, "")
			j.program(t, "notary", `"$NOTARY" "$@"; code=$?; mkdir "$work/notary/tuf/$IMAGE/metadata/targets"; exit $code`)
			j.want(t, signed, doubt, "has delegations")
			j.env["TAG"] = "1.4.1"
			j.want(t, signed, doubt, "has delegations")
		})
		t.Run("a wrong passphrase", func(t *testing.T) {
			t.Parallel()
			server := startNotary(t)
			j := jobWith(t, shell, server, "docker.io/acme/api")
			j.env["NOTARY_TARGETS_PASSPHRASE"] = "canary, but another"
			j.want(t, sign, 1, "could not be signed")
			j.want(t, signed, no, "")
			listed(t, server, j.env["IMAGE"])
		})
		t.Run("the key of another image", func(t *testing.T) {
			t.Parallel()
			server := startNotary(t)
			j := jobWith(t, shell, server, "docker.io/acme/api")
			server.init(t, "docker.io/acme/web")
			j.env["IMAGE"] = "docker.io/acme/web"
			j.want(t, sign, 1, "could not be signed")
			j.want(t, signed, no, "")
			listed(t, server, j.env["IMAGE"])
		})
	})
}

func TestContentTrustRefusesInvalidNames(t *testing.T) {
	t.Parallel()
	eachShell(t, func(t *testing.T, shell []string) {
		server := startNotary(t)
		j := jobWith(t, shell, server, "docker.io/acme/api")
		j.want(t, sign, 0, "")
		for variable, values := range map[string][]string{
			"IMAGE":           {"", "--help", "$(touch pwned)", "acme/api;touch pwned", "docker.io/acme/api x", "acme/*", "/acme/api", "../acme/api", "acme/../../api"},
			"TAG":             {"", "--help", "-p", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "1.4.0 x", "1.4.0\n", "'\"", "*", ".1", "a/b"},
			"DIGEST":          {"", "sha256:", "sha256:" + strings.Repeat("A", 64), "md5:" + strings.Repeat("a", 64), digestA + "a", digestA[:70], strings.Repeat("a", 71), digestA[:70] + "$"},
			"CI_PIPELINE_URL": {"https://gitlab.example/\",\"tag\":\"", "$(touch pwned)", "a\nb"},
			"SIZE":            {"", "-1", "0x10", "1 2", "1;touch pwned"},
		} {
			for _, value := range values {
				hostile := *j
				hostile.env = maps.Clone(j.env)
				hostile.env[variable] = value
				for _, function := range []string{signed, sign} {
					if code, out := hostile.call(t, function); code != 1 || !strings.Contains(out, variable+" is not a") {
						t.Errorf("%s with %s %s ended with %d:\n%s", function, variable, strconv.Quote(value), code, out)
					}
				}
			}
		}
		// What the grammar allows is taken as it is.
		for _, tag := range []string{"_", "A--help", "1.4.0_-.", strings.Repeat("x", 128)} {
			j.env["TAG"] = tag
			j.want(t, sign, 0, "")
			j.want(t, signed, yes, "")
		}
	})
}

func TestContentTrustGuard(t *testing.T) {
	t.Parallel()
	key := "-----BEGIN ENCRYPTED PRIVATE KEY-----\nrole: targets\n\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"
	tests := map[string]struct {
		env  map[string]string
		date string // what a fake clock says
		// what a fake docker says; none is asked unless content trust is on
		docker string
		key    string
		says   string // nothing: the guard lets it pass silently
		passes bool
	}{
		"a server of one's own":                {},
		"a server of one's own, later":         {date: "20300101"},
		"Docker's, the day before it ends":     {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": ""}, date: "20261207", says: "shuts down on 2026-12-08", passes: true},
		"Docker's, the day it ends":            {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": ""}, date: "20261208", says: "was shut down on 2026-12-08"},
		"Docker's, a year later":               {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": "https://notary.docker.io"}, date: "20271208", says: "was shut down on 2026-12-08"},
		"Docker's, written in another way":     {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": "https://Notary.Docker.IO.:443/"}, date: "20261208", says: "was shut down on 2026-12-08"},
		"a name that only begins like it":      {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": "https://notary.docker.io.acme.example/"}, date: "20261208"},
		"Docker's, with a clock that says no":  {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": ""}, date: "no", says: "the clock cannot be read"},
		"a server without TLS":                 {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": "http://notary.example"}, says: "must be a URL that begins with https://"},
		"a password in the URL":                {env: map[string]string{"DOCKER_CONTENT_TRUST_SERVER": "https://user:canary@notary.example"}, says: "NOTARY_AUTH"},
		"a CA that is not a file":              {env: map[string]string{"NOTARY_CA_FILE": "-----BEGIN CERTIFICATE-----"}, says: "NOTARY_CA_FILE is not a file"},
		"no key":                               {env: map[string]string{"NOTARY_KEY_FILE": ""}, says: "there is no key"},
		"a key that is not a file":             {env: map[string]string{"NOTARY_KEY_FILE": key + "canary"}, says: "the key is not a file"},
		"the root key":                         {key: strings.Replace(key, "targets", "root", 1), says: "must never be in CI"},
		"the root key behind another":          {key: key + strings.Replace(key, "targets", "root", 1), says: "must never be in CI"},
		"a snapshot key without a passphrase":  {key: key + strings.Replace(key, "targets", "snapshot", 1), says: "NOTARY_SNAPSHOT_PASSPHRASE is missing"},
		"no passphrase":                        {env: map[string]string{"NOTARY_TARGETS_PASSPHRASE": ""}, says: "NOTARY_TARGETS_PASSPHRASE is missing"},
		"docker 29 that is not used":           {docker: "Docker version 29.0.1, build eedd969"},
		"docker 29 with content trust off":     {docker: "Docker version 29.0.1, build eedd969", env: map[string]string{"DOCKER_CONTENT_TRUST": "0"}},
		"docker 28 with content trust":         {docker: "Docker version 28.2.2, build e6534b4", env: map[string]string{"DOCKER_CONTENT_TRUST": "1"}},
		"docker 29 with content trust":         {docker: "Docker version 29.0.1, build eedd969", env: map[string]string{"DOCKER_CONTENT_TRUST": "1"}, says: "would silently push without a signature"},
		"docker 30 with content trust, as yes": {docker: "Docker version 30.1.0", env: map[string]string{"DOCKER_CONTENT_TRUST": "yes"}, says: "would silently push without a signature"},
		"podman that says it is docker":        {docker: "podman version 5.6.0", env: map[string]string{"DOCKER_CONTENT_TRUST": "1"}, says: "would silently push without a signature"},
	}
	eachShell(t, func(t *testing.T, shell []string) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				j := newJob(t, shell)
				file := filepath.Join(t.TempDir(), "key.pem")
				write(t, file, key)
				if test.key != "" {
					write(t, file, test.key)
				}
				j.env["DOCKER_CONTENT_TRUST_SERVER"] = "https://notary.example:4443"
				j.env["NOTARY_KEY_FILE"] = file
				j.env["NOTARY_TARGETS_PASSPHRASE"] = targetsPassphrase
				maps.Copy(j.env, test.env)
				if test.date != "" {
					j.program(t, "date", "echo "+test.date)
				}
				if test.docker != "" {
					j.program(t, "docker", "echo '"+test.docker+"'")
				}
				want := 1
				if test.says == "" || test.passes {
					want = 0
				}
				j.want(t, guard, want, test.says)
			})
		}
		t.Run("no client", func(t *testing.T) {
			t.Parallel()
			j := newJob(t, shell)
			if err := os.Remove(filepath.Join(j.bin, "notary")); err != nil {
				t.Fatal(err)
			}
			// The machine's own directories may hold one.
			for _, name := range []string{"date", "tr", "grep"} {
				path, err := exec.LookPath(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(j.bin, name)); err != nil {
					t.Fatal(err)
				}
			}
			j.env["PATH"] = j.bin
			j.env["DOCKER_CONTENT_TRUST_SERVER"] = "https://notary.example"
			j.want(t, guard, 1, "the notary client is missing")
		})
	})
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
