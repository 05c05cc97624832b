package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/getto-systems/hubrelay/internal/dockerhub"
	"github.com/getto-systems/hubrelay/internal/httpclient"
)

const pushUsage = `Usage: hubrelay push URL REPOSITORY:TAG

Sends the webhook that Docker Hub documents to a hubrelay, as a smoke test.
URL is what was pasted into Docker Hub.
`

// pushTimeout is longer than the webhook waits for Pub/Sub.
const pushTimeout = 20 * time.Second

func push(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { _, _ = io.WriteString(out, pushUsage) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return errors.New("push takes a URL and REPOSITORY:TAG")
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
		return errors.New("the URL cannot be read") // err repeats it, and with it the token
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
	if res.StatusCode != http.StatusAccepted {
		return errors.New("the push was not accepted")
	}
	return nil
}
