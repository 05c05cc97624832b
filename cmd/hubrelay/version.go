package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/getto-systems/hubrelay/internal/version"
)

const versionUsage = `Usage: hubrelay version [FLAGS]

Prints the version, the commit that it was built from if that is known, and the
platform that it was built for. A deployed function has its version in the header
Hubrelay-Version of GET /ready.

Flags:
`

// buildInfo is what hubrelay version -json writes.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Changed  bool   `json:"changed,omitempty"` // files, since the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func versionCommand(_ context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	if err := parse(flags, versionUsage, args, out); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("version takes flags and no arguments, and %.50q is one", flags.Arg(0))
	}
	b := buildInfo{Version: version.Number, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	b.Commit, b.Changed = version.Commit()
	if *asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(b)
	}
	about := []string{b.Go, b.Platform}
	switch {
	case b.Changed:
		about = append([]string{"commit " + b.Commit + " and changes"}, about...)
	case b.Commit != "":
		about = append([]string{"commit " + b.Commit}, about...)
	}
	_, err := fmt.Fprintf(out, "hubrelay %s (%s)\n", b.Version, strings.Join(about, ", "))
	return err
}
