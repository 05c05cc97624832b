package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const pushUsage = `Usage: hubrelay push URL REPOSITORY:TAG

Sends the webhook that Docker Hub documents, as a smoke test. URL is the one that
was pasted into Docker Hub: Terraform's output webhook_url, a slash and a token, or
what hubrelay local prints. A pipeline starts if the image is in the registry, and a
route matches its repository.
`

// pushTimeout is longer than the webhook waits for Pub/Sub.
const pushTimeout = 20 * time.Second

func push(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	if err := parse(flags, pushUsage, args, out); err != nil {
		return err
	}
	switch {
	case flags.NArg() != 2:
		return fmt.Errorf("push takes two arguments, a URL and REPOSITORY:TAG, and not %d", flags.NArg())
	case strings.Contains(flags.Arg(1), "://"):
		return errors.New("the second argument is a URL: push takes the URL first, then REPOSITORY:TAG")
	}
	if err := checkWebhookURL(flags.Arg(0)); err != nil {
		return err
	}
	repository, tag, err := dockerhub.SplitImage(flags.Arg(1))
	if err != nil {
		return err
	}
	body, err := dockerhub.Webhook(repository, tag, time.Now())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, flags.Arg(0), bytes.NewReader(body))
	if err != nil {
		return errNoURL
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := httpclient.New(pushTimeout).Do(req)
	if err != nil {
		return fmt.Errorf("send the webhook: %w", httpclient.Unanswered(err)) // err has the URL, whose path is a secret
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	fmt.Fprintf(out, "%s\n%s\n", res.Status, bytes.TrimSpace(answer))
	switch res.StatusCode {
	case http.StatusAccepted:
		_, err := fmt.Fprintf(out, afterPush, repository, tag)
		return err
	case http.StatusUnauthorized:
		return errors.New("the push was not accepted: the URL does not end in one of WEBHOOK_TOKENS")
	case http.StatusNotFound:
		return errors.New("the push was not accepted: there is no hubrelay at this URL")
	}
	return errors.New("the push was not accepted")
}

const afterPush = `
Within seconds, Trigger asks the registry for %[1]s:%[2]s, and has GitLab create a
pipeline unless this image was promoted before. Slack shows a message when the
pipeline starts, and updates it when the promotion is done. If nothing happens,
hubrelay status shows why the promotion waits, hubrelay replay shows what was given
up, and the log of Trigger has the push with its outcome.
`

// errNoURL does not repeat what was typed, because it may contain a token.
var errNoURL = errors.New("the first argument is not a URL such as https://HOST/TOKEN: give the one that was pasted into Docker Hub")

// checkWebhookURL says what is wrong with the URL of a webhook without repeating
// it.
func checkWebhookURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errNoURL
	}
	if strings.Trim(u.Path, "/") == "" {
		return errors.New("the URL has no token: give all of what was pasted into Docker Hub, https://HOST/TOKEN")
	}
	return nil
}
