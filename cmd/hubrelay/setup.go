package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/getto-systems/hubrelay/internal/route"
)

// file is one that init writes.
type file struct {
	name, about string
	mode        fs.FileMode
	text        []byte
}

// written are the files without their texts; the last one says what is next.
var written = []file{
	{name: "terraform.tfvars", about: "the settings for Terraform", mode: 0o644},
	{name: "secrets.env", about: "the secrets, two of which you fill in; only you can read it", mode: 0o600},
	{name: ".gitignore", about: "keeps the secrets out of Git", mode: 0o644},
	{name: ".gitlab-ci.yml", about: "the pipeline, for the GitLab project", mode: 0o644},
	{name: "slack-manifest.yml", about: "the Slack app", mode: 0o644},
	{name: "NEXT.md", about: "what is left to do, as shown below", mode: 0o644},
}

//go:embed setup/*.tmpl
var setup embed.FS

// files makes the files that go into the folder, with new tokens.
func (a answers) files(folder string) ([]file, error) {
	routes, err := json.Marshal(map[string]any{a.Repository: map[string]any{
		"gitlab": map[string]string{"project": a.GitLabProject},
		"slack":  map[string]string{"channel": a.Channel},
	}})
	if err != nil {
		return nil, fmt.Errorf("write the routes: %w", err)
	}
	if _, err := route.Parse(string(routes)); err != nil {
		return nil, fmt.Errorf("the answers make no route: %w", err)
	}
	include := "remote: " + a.Template
	if component.MatchString(a.Template) {
		include = "component: $CI_SERVER_FQDN/" + a.Template
	}
	values := struct {
		answers
		Routes, Include, NotifyAudience string
		WebhookToken, CosignPassword    string
		Dir                             string
	}{
		answers: a, Routes: string(routes), Include: include,
		// As terraform/locals.tf makes it, for the name hubrelay.
		NotifyAudience: fmt.Sprintf("https://%s-%s.cloudfunctions.net/hubrelay-notify", a.Region, a.Project),
		WebhookToken:   newToken(), CosignPassword: newToken(),
		Dir: shellQuote(folder),
	}
	texts, err := template.ParseFS(setup, "setup/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("read the templates: %w", err)
	}
	files := slices.Clone(written)
	for i := range files {
		var text bytes.Buffer
		if err := texts.ExecuteTemplate(&text, strings.TrimPrefix(files[i].name, ".")+".tmpl", values); err != nil {
			return nil, fmt.Errorf("make %s: %w", files[i].name, err)
		}
		files[i].text = text.Bytes()
	}
	return files, nil
}

// newToken makes what openssl rand -hex 24 does.
func newToken() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func shellQuote(text string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_./-]+$`).MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// standing says which files stand in the way.
func standing(folder string, force bool) error {
	var names []string
	for _, f := range written {
		info, err := os.Lstat(filepath.Join(folder, f.name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("look into the folder: %w", err)
		case info.IsDir():
			return fmt.Errorf("%s has a folder called %s", folder, f.name)
		default:
			names = append(names, f.name)
		}
	}
	if len(names) > 0 && !force {
		return fmt.Errorf("%s has %s: give another -dir, or -force to overwrite", folder, strings.Join(names, ", "))
	}
	return nil
}

// place writes all files into the folder, which it makes where there is none, or
// leaves everything as it was. It overwrites only if force says so.
func place(ctx context.Context, folder string, files []file, force bool) (err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			return
		}
		for _, u := range slices.Backward(undo) {
			err = errors.Join(err, u())
		}
	}()
	for _, missing := range missingFolders(folder) {
		if err := os.Mkdir(missing, 0o755); err != nil {
			return err
		}
		undo = append(undo, func() error { return os.Remove(missing) })
	}
	stage, err := os.MkdirTemp(folder, ".hubrelay-init-")
	if err != nil {
		return err
	}
	undo = append(undo, func() error { return os.RemoveAll(stage) })
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(stage, f.name), f.text, f.mode); err != nil {
			return err
		}
	}
	for _, f := range files {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		name := filepath.Join(folder, f.name)
		if force {
			old := filepath.Join(stage, "old "+f.name)
			switch err := os.Rename(name, old); {
			case err == nil:
				undo = append(undo, func() error { return os.Rename(old, name) })
			case !errors.Is(err, fs.ErrNotExist):
				return err
			}
		}
		// Taken first, so that nothing that came meanwhile is overwritten.
		taken, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		undo = append(undo, func() error { return os.Remove(name) })
		if err := taken.Close(); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(stage, f.name), name); err != nil {
			return err
		}
	}
	_ = os.RemoveAll(stage) // all is written: nothing that is left there is a reason to take it back
	return nil
}

// missingFolders returns the folder and those around it that are not there, the
// outermost first.
func missingFolders(folder string) []string {
	var missing []string
	for {
		if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
			slices.Reverse(missing)
			return missing
		}
		missing = append(missing, folder)
		folder = filepath.Dir(folder)
	}
}
