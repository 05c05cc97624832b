// Command hubrelay runs the whole system on one machine, and sets up, checks
// and operates a deployed one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agext/levenshtein"
)

const usage = `hubrelay turns Docker Hub's webhooks into GitLab pipelines.

Usage: hubrelay COMMAND [FLAGS]

  init                       write the files for a deployment
  local                      run the whole system on this machine, with fakes
  check                      check the set-up, and say what to fix
  push URL REPOSITORY:TAG    send the webhook that Docker Hub would send
  replay                     list dead letters, and queue them again
  reconcile                  list pushes that Docker Hub did not report, and queue them
  status                     show recent promotions
  version                    print the version

hubrelay COMMAND -h describes a command and its flags.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends it immediately
	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	end := exit{1, err}
	errors.As(err, &end)
	if end.err != nil {
		fmt.Fprintln(os.Stderr, "hubrelay:", end.err)
	}
	stop()
	os.Exit(end.code)
}

// commands take their arguments without their name.
var commands = map[string]func(context.Context, []string, io.Writer) error{
	"check":     checkCommand,
	"init":      initCommand,
	"local":     local,
	"push":      push,
	"reconcile": reconcileCommand,
	"replay":    replay,
	"status":    status,
	"version":   versionCommand,
}

// run runs the command with args, which do not contain the program's name.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		_, err := io.WriteString(out, usage)
		return err
	}
	command, ok := commands[args[0]]
	if !ok {
		if near := nearest(args[0], slices.Sorted(maps.Keys(commands))); near != "" {
			return fmt.Errorf("there is no command %.50q; did you mean %s?", args[0], near)
		}
		return fmt.Errorf("there is no command %.50q; hubrelay help lists them", args[0])
	}
	return command(ctx, args[1:], out)
}

// parse reads a command's flags. It writes the help if that is requested, and
// nothing else. A mistake is returned as an error of one line.
func parse(flags *flag.FlagSet, help string, args []string, out io.Writer) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, _ = io.WriteString(out, help)
		flags.SetOutput(out)
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%s: %w; hubrelay %[1]s -h lists the flags", flags.Name(), err)
	}
	return nil
}

// age is a flag for the maximum age of something.
type age time.Duration

func (a *age) String() string { return time.Duration(*a).String() }

func (a *age) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("it is not a duration such as 90m or 48h")
	}
	*a = age(d)
	return nil
}

// count writes a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// nearest returns the word that was most likely meant, or "" if none is
// similar.
func nearest(typed string, words []string) string {
	best, least := "", 3 // a word with more than two typing errors is a different word
	for _, word := range words {
		if d := levenshtein.Distance(strings.ToLower(typed), word, nil); d < least && d < len(word)-1 {
			best, least = word, d
		}
	}
	return best
}
