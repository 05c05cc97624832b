package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer is in front of the instances of a function, like Cloud Run. If an
// instance is down, or ends before it has answered, the answer is 503.
type balancer struct {
	URL   string
	heard func(body []byte) // of an answer of 200; may be nil

	next    atomic.Uint64
	mu      sync.Mutex
	targets []string
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	b := &balancer{}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	b.URL = server.URL
	return b
}

func (b *balancer) add(target string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = append(b.targets, target)
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, header, body := b.forward(r)
	if wait := header.Get("Retry-After"); wait != "" {
		w.Header().Set("Retry-After", wait)
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
	if b.heard != nil && status == http.StatusOK {
		b.heard(body)
	}
}

// forward asks the next instance, and reads its whole answer.
func (b *balancer) forward(r *http.Request) (status int, header http.Header, body []byte) {
	b.mu.Lock()
	targets := b.targets
	b.mu.Unlock()
	if len(targets) == 0 {
		return http.StatusServiceUnavailable, nil, nil
	}
	req, err := http.NewRequest(r.Method, targets[b.next.Add(1)%uint64(len(targets))]+r.URL.Path, r.Body)
	if err != nil {
		return http.StatusServiceUnavailable, nil, nil
	}
	req.ContentLength = r.ContentLength
	req.Header = r.Header.Clone()
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return http.StatusServiceUnavailable, nil, nil
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		return http.StatusServiceUnavailable, nil, nil
	}
	return res.StatusCode, res.Header, body
}

// tcpProxy is in front of a server that can be unreachable without losing its
// data.
type tcpProxy struct {
	addr, to string

	mu    sync.Mutex
	away  bool
	conns map[net.Conn]bool
}

func newTCPProxy(t *testing.T, to string) *tcpProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tcpProxy{addr: l.Addr().String(), to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		_ = l.Close()
		p.setAway(true)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

func (p *tcpProxy) serve(conn net.Conn) {
	defer conn.Close()
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer to.Close()
	p.mu.Lock()
	if p.away {
		p.mu.Unlock()
		return
	}
	p.conns[conn] = true
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, to}, {to, conn}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	p.mu.Lock()
	delete(p.conns, conn)
	p.mu.Unlock()
}

// awayFor cuts all connections, and accepts none for a time.
func (p *tcpProxy) awayFor(d time.Duration) {
	p.setAway(true)
	time.AfterFunc(d, func() { p.setAway(false) })
}

func (p *tcpProxy) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
	for conn := range p.conns {
		if away {
			_ = conn.Close()
		}
	}
}
