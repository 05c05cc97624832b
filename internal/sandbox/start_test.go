package sandbox_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/sandbox"
)

// A push is noticed as soon as the sandbox answers, for instance from a script
// or a browser that reconnects.
func TestAPushDuringTheStartIsNoticed(t *testing.T) {
	t.Parallel()
	for range 3 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := listener.Addr().String()
		_ = listener.Close()
		began := make(chan struct{})
		pushed := make(chan []string)
		go func() {
			var images []string
			defer func() { pushed <- images }()
			close(began)
			for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && len(images) < 3; {
				image := fmt.Sprintf("acme/early:1.%d.0", len(images))
				res, err := http.PostForm("http://"+addr+"/api/push", url.Values{"image": {image}, "kind": {"single"}})
				if err != nil {
					time.Sleep(time.Millisecond) // the sandbox does not listen yet
					continue
				}
				_ = res.Body.Close()
				if res.StatusCode == http.StatusOK {
					images = append(images, image)
				}
			}
		}()
		<-began
		b := start(t, sandbox.Config{Addr: addr})
		images := <-pushed
		if len(images) == 0 {
			t.Fatal("nothing was pushed")
		}
		for _, image := range images {
			end := time.Now().Add(20 * time.Second)
			for heard := 0; heard == 0; time.Sleep(10 * time.Millisecond) {
				if _, heard, err = b.Rows(sandbox.Query{Text: image}); err != nil || time.Now().After(end) {
					t.Fatalf("nobody hears of %s: %v", image, err)
				}
			}
		}
	}
}
