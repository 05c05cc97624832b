// Command hubrelay runs the whole system on one machine, sends it pushes, and
// tends one that is deployed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `hubrelay turns Docker Hub's webhooks into GitLab pipelines.

Usage: hubrelay COMMAND [FLAGS]

  local                      run the whole system on this machine, with fakes
  push URL REPOSITORY:TAG    send the webhook that Docker Hub would send
  replay                     show dead letters, and queue them again
  status                     show the promotions of late

hubrelay COMMAND -h tells more.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "hubrelay:", err)
		stop()
		os.Exit(1)
	}
}

// run is the command: args without the program's name.
func run(ctx context.Context, args []string, out io.Writer) error {
	commands := map[string]func(context.Context, []string, io.Writer) error{
		"local":  local,
		"push":   push,
		"replay": replay,
		"status": status,
	}
	if len(args) == 0 || args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		_, err := io.WriteString(out, usage)
		return err
	}
	command, ok := commands[args[0]]
	if !ok {
		return fmt.Errorf("there is no command %q; hubrelay help lists them", args[0])
	}
	return command(ctx, args[1:], out)
}
