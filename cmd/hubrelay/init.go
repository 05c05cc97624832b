package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/env"
	"github.com/getto-systems/hubrelay/internal/version"
)

const initUsage = `Usage: hubrelay init [FLAGS]

Writes the files for a deployment into a new folder: the settings for Terraform,
the secrets as environment variables, the .gitlab-ci.yml of the GitLab project, the
manifest of the Slack app, and a list of what is left to do by hand. It asks for
everything that no flag answers, and contacts nobody.

It writes either all files or none, and overwrites nothing. With -force it
overwrites, and creates new tokens: the ones in the old secrets.env are lost.

Flags:
`

func initCommand(ctx context.Context, args []string, out io.Writer) error {
	return initialize(ctx, args, os.Stdin, canAnswer(os.Stdin), out)
}

// canAnswer tells whether somebody may type what is read from f: it is a character
// device, and not the one in which there is nothing.
func canAnswer(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// initialize asks through in and out if somebody is there.
func initialize(ctx context.Context, args []string, in io.Reader, someone bool, out io.Writer) error {
	var (
		a         answers
		questions = questions(&a)
		flags     = flag.NewFlagSet("init", flag.ContinueOnError)
		dir       = flags.String("dir", "hubrelay-setup", "write into this `folder`")
		force     = flags.Bool("force", false, "overwrite existing files")
	)
	for _, q := range questions {
		flags.StringVar(q.answer, q.flag, "", q.usage)
	}
	if err := parse(flags, initUsage, args, out); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("init takes flags and no arguments, and %.100q is one", flags.Arg(0))
	}
	if *dir == "" {
		return errors.New("-dir is empty: give the folder to write into")
	}
	folder, err := filepath.Abs(*dir)
	if err != nil {
		return fmt.Errorf("-dir: %w", err)
	}
	if err := standing(folder, *force); err != nil {
		return err
	}
	if err := checkFlags(questions, someone); err != nil {
		return err
	}
	if err := ask(ctx, questions, in, out); err != nil {
		return err
	}
	files, err := a.files(folder)
	if err != nil {
		return err
	}
	if err := place(ctx, folder, files, *force); err != nil {
		return fmt.Errorf("nothing was written: %w", err)
	}
	fmt.Fprintf(out, "Written into %s:\n", *dir)
	for _, f := range files {
		fmt.Fprintf(out, "  %-18s  %s\n", f.name, f.about)
	}
	_, err = fmt.Fprintf(out, "\n%s", files[len(files)-1].text)
	return err
}

// answers are what init has to know.
type answers struct {
	Project, Region, Repository, GitLab, GitLabProject, Channel, Language, Template string
}

// question is one that init asks where the flag of that name does not answer it.
type question struct {
	answer      *string
	flag, usage string
	asked       string
	// suggestion is taken for an empty answer; where nobody can be asked, too, if
	// it is a default.
	suggestion func() string
	isDefault  bool
	// read returns the answer as it is kept, or says what is wrong with it.
	read func(string) (string, error)
}

// release is the tag at which the project's file names the template: that of this
// version, or the one to come.
var release = "v" + strings.TrimSuffix(version.Number, "-dev")

// Of project and region, the rules are those of terraform/variables.tf.
var (
	projectID     = regexp.MustCompile(`^[a-z][a-z0-9-]{4,28}[a-z0-9]$`)
	region        = regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]+$`)
	gitlabURL     = regexp.MustCompile(`^https://[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[1-9][0-9]*)?(?:/[A-Za-z0-9._~-]+)*$`)
	gitlabProject = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$`)
	channelID     = regexp.MustCompile(`^[CG][A-Z0-9]{2,20}$`)
	templateURL   = regexp.MustCompile(`^https://[A-Za-z0-9.-]+(?::[0-9]+)?/[A-Za-z0-9._~/@%+-]+\.ya?ml$`)
	component     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+@[A-Za-z0-9._~+-]+$`)
)

func questions(a *answers) []question {
	always := func(text string) func() string { return func() string { return text } }
	// A wrong answer is not repeated, for it may be a secret in the wrong place.
	like := func(pattern *regexp.Regexp, want string) func(string) (string, error) {
		return func(text string) (string, error) {
			if !pattern.MatchString(text) {
				return "", errors.New("this is not " + want)
			}
			return text, nil
		}
	}
	return []question{
		{
			answer: &a.Project, flag: "project", usage: "`ID` of the Google Cloud project",
			asked: "ID of the Google Cloud project",
			read:  like(projectID, "the ID of a project, such as acme-hubrelay, which is neither its name nor its number: gcloud projects list shows it"),
		},
		{
			answer: &a.Region, flag: "region", usage: "`region` for everything, such as europe-west1; it cannot be changed later",
			asked: "Region for everything; it cannot be changed later", suggestion: always("europe-west1"),
			read: like(region, "a region, such as europe-west1, and no zone or multi-region: gcloud functions regions list shows them"),
		},
		{
			answer: &a.Repository, flag: "repository", usage: "`repository` on Docker Hub whose pushes are promoted, such as acme/api",
			asked: "Repository on Docker Hub, such as acme/api",
			read: func(text string) (string, error) {
				namespace, _, _ := strings.Cut(text, "/") // with a dot it is a registry
				if dockerhub.CheckRepository(text) != nil || strings.Count(text, "/") != 1 || strings.Contains(namespace, ".") {
					return "", errors.New("this is not a namespace and a name in lower case, such as acme/api, without registry and tag")
				}
				return text, nil
			},
		},
		{
			answer: &a.GitLab, flag: "gitlab-url", usage: "`URL` of GitLab; the default is https://gitlab.com",
			asked: "URL of GitLab", suggestion: always("https://gitlab.com"), isDefault: true,
			read: func(text string) (string, error) {
				const want = "the URL of a GitLab, which starts with https:// and has no user, query or fragment"
				text, err := like(gitlabURL, want)(strings.TrimRight(text, "/"))
				r := env.New(func(string) string { return text })
				switch r.URL("GITLAB_URL", ""); {
				case err != nil:
				case r.Err() != nil:
					err = errors.New("this is not " + want)
				case strings.HasPrefix(text, "https://gitlab.com/"):
					err = errors.New("this is the URL of a group or project: that of GitLab itself is https://gitlab.com")
				}
				return text, err
			},
		},
		{
			answer: &a.GitLabProject, flag: "gitlab-project", usage: "`path` of the GitLab project that runs the pipeline, such as acme/images/api",
			asked: "Path of the GitLab project that runs the pipeline", suggestion: func() string { return a.Repository },
			read: func(text string) (string, error) {
				text, err := like(gitlabProject, "the path of a project, such as acme/images/api, which is neither its URL nor its ID")(text)
				if strings.HasSuffix(text, ".git") {
					err = errors.New("this is the path of a clone: leave out .git")
				}
				return text, err
			},
		},
		{
			answer: &a.Channel, flag: "channel", usage: "`ID` of the Slack channel for the messages, such as C0123456789",
			asked: "ID of the Slack channel, which is at the end of its details",
			read:  like(channelID, "the ID of a channel, such as C0123456789, which is not its name: Slack shows it at the end of the channel's details"),
		},
		{
			answer: &a.Language, flag: "language", usage: "`language` of the Slack messages, en or ja; the default is en",
			asked: "Language of the Slack messages, en or ja", suggestion: always("en"), isDefault: true,
			read: like(regexp.MustCompile(`^(?:en|ja)$`), "a language that hubrelay speaks: en or ja"),
		},
		{
			answer: &a.Template, flag: "template", usage: "`where` GitLab finds the template: a URL, or GROUP/PROJECT/promote@VERSION for a component of your GitLab; the default is its URL on GitHub",
			asked:      "Where GitLab finds the template",
			suggestion: always("https://raw.githubusercontent.com/getto-systems/hubrelay/" + release + "/templates/promote.yml"), isDefault: true,
			read: func(text string) (string, error) {
				switch {
				case strings.Contains(text, "/blob/"):
					return "", errors.New("this is not where a template is, but a page that shows it: its Raw button has the URL")
				case templateURL.MatchString(text):
					return text, nil
				}
				return like(component, "where a template is: its URL with https://, or GROUP/PROJECT/promote@VERSION")(text)
			},
		},
	}
}

// checkFlags reads the answers that flags gave. Where nobody can be asked, those
// that are left out have to have a default.
func checkFlags(questions []question, someone bool) error {
	var mistakes, missing []string
	for _, q := range questions {
		text := strings.TrimSpace(*q.answer)
		if text == "" && !someone {
			if !q.isDefault {
				missing = append(missing, "-"+q.flag)
				continue
			}
			text = q.suggestion()
		}
		if text == "" {
			continue
		}
		var err error
		if *q.answer, err = q.read(text); err != nil {
			mistakes = append(mistakes, fmt.Sprintf("-%s: %v", q.flag, err))
		}
	}
	if len(missing) > 0 {
		mistakes = append(mistakes, fmt.Sprintf("there is no terminal to ask on: give %s", strings.Join(missing, ", ")))
	}
	if len(mistakes) > 0 {
		return errors.New(strings.Join(mistakes, "; "))
	}
	return nil
}

// longestAnswer is in bytes, and longer than whatever is right.
const longestAnswer = 4096

// ask asks what is not answered yet, each question until its answer is right.
func ask(ctx context.Context, questions []question, in io.Reader, out io.Writer) error {
	var (
		scanner = bufio.NewScanner(in)
		lines   = make(chan bool)
	)
	scanner.Buffer(nil, longestAnswer)
	for i, q := range questions {
		for *q.answer == "" {
			suggestion := ""
			if q.suggestion != nil {
				suggestion = q.suggestion()
			}
			if suggestion != "" {
				fmt.Fprintf(out, "%s [%s]: ", q.asked, suggestion)
			} else {
				fmt.Fprintf(out, "%s: ", q.asked)
			}
			// A read from a terminal cannot be interrupted: it is left behind.
			go func() {
				more := scanner.Scan()
				select {
				case lines <- more:
				case <-ctx.Done():
				}
			}()
			select {
			case <-ctx.Done():
				fmt.Fprintln(out)
				return errors.New("interrupted; nothing was written")
			case more := <-lines:
				if !more {
					fmt.Fprintln(out)
					return unanswered(questions[i:], scanner.Err())
				}
			}
			text := strings.TrimSpace(scanner.Text())
			if text == "" {
				text = suggestion
			}
			if text == "" {
				fmt.Fprintln(out, "  An answer is required.")
				continue
			}
			answer, err := q.read(text)
			if err != nil {
				fmt.Fprintf(out, "  %v\n", err)
				continue
			}
			*q.answer = answer
		}
	}
	return nil
}

// unanswered says what is missing where the input has ended.
func unanswered(questions []question, err error) error {
	var missing []string
	for _, q := range questions {
		if *q.answer == "" {
			missing = append(missing, "-"+q.flag)
		}
	}
	if err != nil {
		err = fmt.Errorf("read the answer: %w", err)
	} else {
		err = errors.New("the input has ended")
	}
	return fmt.Errorf("%w; nothing was written. These flags answer the rest: %s", err, strings.Join(missing, ", "))
}
