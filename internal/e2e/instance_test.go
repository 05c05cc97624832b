package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// instance is a process that is killed and started again, at the same address.
type instance struct {
	t            *testing.T
	name, target string
	url          string
	env          []string
	log          *os.File

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

func newInstance(t *testing.T, name, target string, settings map[string]string) *instance {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), strings.ReplaceAll(name, " ", "-")+".log"))
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	i := &instance{t: t, name: name, target: target, url: "http://127.0.0.1:" + port, log: log}
	i.env = []string{"FUNCTION_TARGET=" + target, "PORT=" + port, "HOME=" + t.TempDir()}
	for name, value := range settings {
		i.env = append(i.env, name+"="+value)
	}
	if i.start(); t.Failed() {
		t.FailNow()
	}
	t.Cleanup(func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.cmd.Process != nil {
			_ = i.cmd.Process.Kill()
			<-i.done
		}
		_ = log.Close()
	})
	return i
}

// start starts it and waits until it listens.
func (i *instance) start() {
	binary, err := program()
	if err != nil {
		i.t.Error(err)
		return
	}
	i.cmd, i.done = exec.Command(binary), make(chan struct{})
	i.cmd.Env, i.cmd.Stdout, i.cmd.Stderr = i.env, i.log, i.log
	if err := i.cmd.Start(); err != nil {
		i.t.Error(err)
		return
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		_ = cmd.Wait()
		close(done)
	}(i.cmd, i.done)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(i.url + "/ready"); err == nil {
			_ = res.Body.Close()
			return
		}
	}
	i.t.Errorf("%s does not listen", i.name)
}

func (i *instance) restart(signal syscall.Signal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cmd.Process == nil {
		return // it could not be started, which was reported
	}
	_ = i.cmd.Process.Signal(signal)
	<-i.done
	i.start()
}
