package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/getto-systems/hubrelay/internal/check"
	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/route"
	"github.com/getto-systems/hubrelay/internal/version"
)

const checkUsage = `Usage: hubrelay check [FLAGS]

Checks the set-up, and says what to fix. It asks GitLab, Docker Hub, Slack and the
functions what can be asked without side effects, and takes 30 seconds at most.

  hubrelay check -pre -terraform terraform/terraform.tfvars
                                            before the deploy
  terraform -chdir=terraform output -json | hubrelay check -terraform -
                                            after the deploy
  hubrelay check -env hubrelay.env          with settings from lines NAME=VALUE
  hubrelay check -only gitlab               one section, or one finding by its ID
  hubrelay check -explain acme/api:1.2.0-rc1
                                            whether this tag would be promoted, and
                                            which rule decides

Settings have the names that the functions read, such as ROUTES and
GITLAB_TRIGGER_TOKENS. A file takes precedence over the environment. Terraform's
outputs have all settings but the secrets. Beside them, only secrets and addresses
are read from the environment, where the names that Terraform reads work, too
(TF_VAR_gitlab_trigger_tokens). WEBHOOK_URL, NOTIFY_URL and TRIGGER_URL are the
addresses of the functions. With an access token in GITLAB_API_TOKENS, much more of
GitLab can be checked, and a wrong trigger token can be told from a wrong project.

Each finding is pass, warn, fail, skip or unknown. skip means that nothing was
asked, because something it needs is wrong or was not given. unknown means that
something was asked, and the answer was missing or did not settle it.

The exit status is 0 if everything that was checked is fine, 1 if something failed,
and 2 if something is unknown, nothing was checked, or the flags are wrong.

The sections are %s.

Flags:
`

// exit is an error that ends the command with a code of its own.
type exit struct {
	code int
	err  error // nil where all was said
}

func (e exit) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exit) Unwrap() error { return e.err }

func checkCommand(ctx context.Context, args []string, out io.Writer) error {
	err := checkSetup(ctx, args, out)
	var code exit
	if err == nil || errors.Is(err, flag.ErrHelp) || errors.As(err, &code) {
		return err
	}
	return exit{2, err}
}

func checkSetup(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	var (
		o         check.Options
		env       = flags.String("env", "", "read settings from this `file` with lines NAME=VALUE, in which nothing such as $NAME is expanded, and all others from the environment")
		terraform = flags.String("terraform", "", "read settings from this `file`: the output of terraform output -json, or terraform.tfvars before the deploy; - is standard input")
		only      = flags.String("only", "", "check these only, and what they need, `SECTION[,ID]`, such as gitlab,slack.channel")
		asJSON    = flags.Bool("json", false, "print one JSON object, which has a version number")
		explain   = flags.String("explain", "", "tell whether a push of this image would be promoted, `REPOSITORY:TAG`; this needs only ROUTES, and -json works, too")
	)
	flags.BoolVar(&o.Pre, "pre", false, "before the deploy: leave out what the deploy creates")
	flags.BoolVar(&o.NoTrigger, "no-trigger", false, "leave out the only POST request to GitLab, which tests the trigger token by asking for a pipeline on a ref that cannot exist")
	flags.BoolVar(&o.Say, "say", false, "post one line to each Slack channel about which the bot may not ask")
	flags.Func("image", "check this repository, too, `REPOSITORY[:TAG]`; may be repeated. Without it, Docker Hub is asked which repositories a glob matches", func(text string) error {
		i, err := check.ParseImage(text)
		o.Images = append(o.Images, i)
		return err
	})
	if err := parse(flags, fmt.Sprintf(checkUsage, strings.Join(check.Sections, ", ")), args, out); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("check takes flags and no arguments, and %.100q is one", flags.Arg(0))
	}
	if *only != "" {
		for only := range strings.SplitSeq(*only, ",") {
			o.Only = append(o.Only, strings.TrimSpace(only))
		}
	}
	names := check.Names
	if *explain != "" {
		names = []string{"ROUTES"}
	}
	if err := readSettings(ctx, &o, names, *env, *terraform); err != nil {
		return err
	}
	if *explain != "" {
		return explainImage(o.Getenv("ROUTES"), *explain, *asJSON, out)
	}
	o.Version = version.Number
	report, err := check.Run(ctx, o)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	case err != nil:
		return err
	case *asJSON:
		err = report.WriteJSON(out)
	default:
		err = report.WriteText(out, coloured(out))
	}
	if code := report.ExitCode(); err == nil && code != 0 {
		return exit{code: code}
	}
	return err
}

// readSettings says where settings come from: a file counts before what Terraform
// has, and that before the environment, where the variables by which Terraform
// gets its secrets count last. How functions are set that are deployed, their
// deploy alone says: names such as REGISTRY mean something else to others.
func readSettings(ctx context.Context, o *check.Options, names []string, env, terraform string) error {
	var file, outputs map[string]string
	if env == "-" && terraform == "-" {
		return errors.New("-env and -terraform cannot both be standard input")
	}
	if env != "" {
		text, err := readSource(ctx, env)
		if err != nil {
			return fmt.Errorf("-env: %w", err)
		}
		if file, o.Names, err = check.ParseEnv(string(text)); err != nil {
			return fmt.Errorf("-env: %s: %w", env, err)
		}
	}
	if terraform != "" {
		text, err := readSource(ctx, terraform)
		if err != nil {
			return fmt.Errorf("-terraform: %w", err)
		}
		if outputs, o.Deployed, err = check.ParseTerraformFile(text); err != nil {
			return fmt.Errorf("-terraform: %w", err)
		}
	}
	var mistakes []error
	values, deploySays := map[string]string{}, o.Deployed && outputs["ROUTES"] != ""
	for _, name := range names {
		value, given := file[name]
		if !given {
			value = outputs[name]
		}
		if !given && value == "" && (!deploySays || slices.Contains(check.Secrets, name) || slices.Contains(check.Addresses, name)) {
			var err error
			value, err = check.Environment(name, os.Getenv)
			mistakes = append(mistakes, err)
		}
		values[name] = value
	}
	if err := errors.Join(mistakes...); err != nil {
		return err
	}
	o.Getenv = func(name string) string { return values[name] }
	return nil
}

// readSource reads a file, or standard input where its name is -.
func readSource(ctx context.Context, name string) ([]byte, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return readAll(file, name)
	}
	// A read from a terminal cannot be interrupted: it is left behind.
	type result struct {
		text []byte
		err  error
	}
	read, in := make(chan result, 1), os.Stdin
	go func() {
		text, err := readAll(in, "standard input")
		read <- result{text, err}
	}()
	select {
	case r := <-read:
		return r.text, r.err
	case <-ctx.Done():
		return nil, errors.New("interrupted")
	}
}

func readAll(from io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, check.MaxSource+1))
	if err == nil && len(text) > check.MaxSource {
		err = fmt.Errorf("%s is over %d bytes", name, check.MaxSource)
	}
	return text, err
}

// explainVersion is that of the form in which an explanation is written as JSON. It
// grows where a field changes its meaning or goes.
const explainVersion = 1

// explainImage says what would become of a push.
func explainImage(routes, image string, asJSON bool, out io.Writer) error {
	repository, tag, err := dockerhub.SplitImage(image)
	if err == nil {
		err = errors.Join(dockerhub.CheckRepository(repository), dockerhub.CheckTag(tag))
	}
	if err != nil {
		return fmt.Errorf("-explain: %w", err)
	}
	if routes == "" {
		return errors.New("-explain: ROUTES is not set")
	}
	table, err := route.Parse(routes)
	if err != nil {
		return fmt.Errorf("ROUTES: %w", err)
	}
	e := table.Explain(repository, tag)
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			Version int `json:"version"`
			route.Explanation
		}{explainVersion, e})
	}
	_, err = io.WriteString(out, e.String())
	return err
}

// coloured tells whether to colour what is written: on a terminal, unless NO_COLOR
// is set (https://no-color.org) or the terminal is dumb.
func coloured(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
