package gitlab_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/getto-systems/hubrelay/internal/gitlab"
	"github.com/getto-systems/hubrelay/internal/gitlab/gitlabtest"
)

// serveTLS serves a fake GitLab with a self-signed certificate for a name, and
// writes the certificate to a file.
func serveTLS(t *testing.T, name string, until time.Time) (u, certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a CA of one's own"},
		NotBefore: until.Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}

	server := httptest.NewUnstartedServer(nil)
	base := "https://localhost:" + strings.Split(server.Listener.Addr().String(), ":")[1]
	fake := gitlabtest.New(base)
	fake.AddProject(gitlabtest.Project{Path: request.Project, Token: canary})
	server.Config.Handler = fake
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return base, certificate
}

// Without a connection nothing was sent: there is no pipeline.
func TestWithoutAConnectionNothingIsLost(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	unknown, _ := serveTLS(t, "localhost", time.Now().Add(time.Hour))
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	for _, c := range []struct {
		name, url, hint string
	}{
		{"refused", "http://" + listener.Addr().String(), "can be reached"},
		{"an unknown name", "http://gitlab.invalid", "cannot be resolved"},
		{"an unknown authority", unknown, "SSL_CERT_FILE"},
		{"no TLS", "https://" + plain.Listener.Addr().String(), "Set GITLAB_URL to http://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := client(t, c.url+"/gitlab").CreatePipeline(t.Context(), request)
			got := refused(t, err)
			if got.Status != 0 || got.Reason != "gitlab_unavailable" || !got.Temporary() || got.Lost || got.Unwrap() == nil {
				t.Errorf("got %+v", got)
			}
			u, err := url.Parse(c.url)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(got.Hint, c.hint) || !strings.Contains(got.Hint, u.Host) || strings.Contains(got.Hint, "/gitlab") {
				t.Errorf("hint is %q", got.Hint)
			}
		})
	}
}

// A GitLab may have a certificate of your own CA. The environment is read once
// in a process, so this needs separate processes.
func TestACertificateOfOnesOwnCA(t *testing.T) {
	t.Parallel()
	if u := os.Getenv("HUBRELAY_TEST_GITLAB"); u != "" {
		createByHand(t, u)
		return
	}
	if runtime.GOOS != "linux" && os.Getenv("CI") == "" {
		t.Skip("Go reads SSL_CERT_FILE on Linux, where hubrelay runs, and not here")
	}
	for _, c := range []struct {
		name, host string
		until      time.Time
		want       string
	}{
		{"one that is known", "localhost", time.Now().Add(time.Hour), "created"},
		{"one for another name", "gitlab.example", time.Now().Add(time.Hour), "is for another name"},
		{"one that has expired", "localhost", time.Now().Add(-time.Hour), "has expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u, certificate := serveTLS(t, c.host, c.until)
			again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestACertificateOfOnesOwnCA$", "-test.v")
			again.Env = append(os.Environ(), "SSL_CERT_FILE="+certificate, "HUBRELAY_TEST_GITLAB="+u)
			said, err := again.CombinedOutput()
			if err != nil || !strings.Contains(string(said), c.want) {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}

func createByHand(t *testing.T, u string) {
	c, err := gitlab.New(u)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.CreatePipeline(t.Context(), request)
	if err == nil {
		t.Log("created ", p.URL)
		return
	}
	got := refused(t, err)
	if got.Lost || got.Reason != "gitlab_unavailable" || !got.Temporary() || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %+v", got)
	}
	t.Log(got.Hint)
}
