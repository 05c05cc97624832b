package pipeline

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/getto-systems/hubrelay/internal/skip"
)

// What a log must never contain. Quotes, spaces and $ must stay secret, too.
const (
	rootPassphrase     = `canary-root-passphrase`
	targetsPassphrase  = `canary-targets "$(touch pwned)" 'phrase'`
	snapshotPassphrase = `canary-snapshot-passphrase`
)

// notaryTool returns a program that make tools builds.
func notaryTool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", ".tools", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		skip.UnlessCI(t, name+" is not built: run make tools")
	}
	return path
}

// A notaryServer is a real Notary server with TLS, which keeps its data in
// memory. Home is the trust directory of whoever keeps the root key.
type notaryServer struct {
	url, ca, home string
	auth          string // NOTARY_AUTH, if the server asks for it
	client        string
	stop          func()
}

func startNotary(t *testing.T) *notaryServer {
	t.Helper()
	return startNotaryIn(t, t.TempDir(), nil)
}

// startPrivateNotary starts a server that lets in nobody but the user of
// NOTARY_AUTH.
func startPrivateNotary(t *testing.T, user, password string) *notaryServer {
	t.Helper()
	dir := t.TempDir()
	writeTLS(t, dir)
	s := startNotaryIn(t, dir, map[string]any{
		"type": "token",
		"options": map[string]string{
			"realm": fakeTokenServer(t, dir, user, password), "service": "notary", "issuer": "test",
			"rootcertbundle": filepath.Join(dir, "ca.crt"),
		},
	})
	s.auth = base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return s
}

// startNotaryIn starts a server with the certificates in dir, or new ones.
func startNotaryIn(t *testing.T, dir string, auth map[string]any) *notaryServer {
	t.Helper()
	s := &notaryServer{
		ca:     filepath.Join(dir, "ca.crt"),
		home:   filepath.Join(dir, "home"),
		client: notaryTool(t, "notary"),
	}
	if auth == nil {
		writeTLS(t, dir)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(read(t, s.ca)))

	// Another process may take the port before the server does.
	for range 5 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := listener.Addr().String()
		_ = listener.Close()
		if s.listen(t, dir, addr, auth, pool) {
			s.url = "https://" + addr
			return s
		}
	}
	t.Fatal("the Notary server did not start")
	return nil
}

// listen starts the server and waits until it answers. It returns false if the
// server ended instead.
func (s *notaryServer) listen(t *testing.T, dir, addr string, auth map[string]any, pool *x509.CertPool) bool {
	t.Helper()
	config := filepath.Join(dir, "server.json")
	settings := map[string]any{
		"server": map[string]string{
			"http_addr":     addr,
			"tls_cert_file": filepath.Join(dir, "server.crt"),
			"tls_key_file":  filepath.Join(dir, "server.key"),
		},
		"trust_service": map[string]string{"type": "local"},
		"storage":       map[string]string{"backend": "memory"},
		"logging":       map[string]string{"level": "error"},
	}
	if auth != nil {
		settings["auth"] = auth
	}
	writeJSON(t, config, settings)
	var log bytes.Buffer
	cmd := exec.Command(notaryTool(t, "notary-server"), "-config", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	s.stop = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	t.Cleanup(s.stop)

	client := http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool},
		DisableKeepAlives: true,
	}}
	for {
		resp, err := client.Get("https://" + addr + "/_notary_server/health")
		if err == nil {
			_ = resp.Body.Close()
			return true
		}
		select {
		case <-ended:
			t.Logf("the Notary server ended: %s", log.String())
			return false
		case <-t.Context().Done():
			t.Fatal("the Notary server does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// run runs the notary client as the owner of the root key.
func (s *notaryServer) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.try(args...)
	if err != nil {
		t.Fatalf("notary %q: %v\n%s", args, err, out)
	}
	return out
}

func (s *notaryServer) try(args ...string) (string, error) {
	cmd := exec.Command(s.client, append([]string{"-d", s.home, "-s", s.url, "--tlscacert", s.ca}, args...)...)
	cmd.Env = []string{
		"HOME=" + s.home,
		"NOTARY_ROOT_PASSPHRASE=" + rootPassphrase,
		"NOTARY_TARGETS_PASSPHRASE=" + targetsPassphrase,
		"NOTARY_SNAPSHOT_PASSPHRASE=" + snapshotPassphrase,
		"NOTARY_AUTH=" + s.auth,
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// init initialises image, as docs/content-trust.md says, and returns the file
// with the key that goes into CI.
func (s *notaryServer) init(t *testing.T, image string) string {
	t.Helper()
	s.run(t, "init", "-p", image)
	s.run(t, "key", "rotate", image, "snapshot", "-r")
	return s.export(t, "targets", image)
}

// export writes the keys of role to a file whose name needs quoting.
func (s *notaryServer) export(t *testing.T, role, image string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.home, "private", "*.key"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"key", "export"}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		if block == nil {
			t.Fatalf("%s holds no key", file)
		}
		if block.Headers["role"] == role && (role == "root" || block.Headers["gun"] == image) {
			id := filepath.Base(file)
			args = append(args, "--key", id[:len(id)-len(".key")])
		}
	}
	if len(args) == 2 {
		t.Fatalf("there is no %s key of %s", role, image)
	}
	file := filepath.Join(t.TempDir(), "key $(touch pwned) of 'CI'.pem")
	s.run(t, append(args, "-o", file)...)
	return file
}

// fakeTokenServer gives the tokens that a registry's token server gives, to one
// user for everything, and to nobody else.
func fakeTokenServer(t *testing.T, dir, user, password string) string {
	t.Helper()
	cert := loadCertificate(t, dir)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: cert.PrivateKey},
		new(jose.SignerOptions).WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(cert.Certificate[0])}))
	if err != nil {
		t.Fatal(err)
	}
	return serveTLS(t, cert, func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); ok && (u != user || p != password) {
			http.Error(w, "wrong user or password", http.StatusUnauthorized)
			return
		}
		claims := map[string]any{
			"iss": "test", "aud": "notary", "sub": "", "exp": time.Now().Add(time.Hour).Unix(),
		}
		if _, _, ok := r.BasicAuth(); ok {
			// repository:docker.io/acme/api:pull,push
			scope := strings.Split(r.FormValue("scope"), ":")
			if len(scope) == 3 {
				claims["access"] = []any{map[string]any{"type": scope[0], "name": scope[1], "actions": strings.Split(scope[2], ",")}}
			}
		}
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Error(err)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
	})
}

// serveTLS returns the URL of a server with cert.
func serveTLS(t *testing.T, cert tls.Certificate, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func loadCertificate(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// writeTLS makes a CA and the certificate of a server at 127.0.0.1.
func writeTLS(t *testing.T, dir string) {
	t.Helper()
	caKey, ca := newCertificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	key, cert := newCertificate(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "notary"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "ca.crt"), "CERTIFICATE", ca.Raw)
	writePEM(t, filepath.Join(dir, "server.crt"), "CERTIFICATE", cert.Raw)
	writePEM(t, filepath.Join(dir, "server.key"), "EC PRIVATE KEY", der)
}

// newCertificate signs template by parent, or by itself if there is none.
func newCertificate(t *testing.T, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t *testing.T, file string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
