package coordinator

import (
	"os/exec"
	"syscall"
)

// newGroup does nothing: Windows has no groups that can be signalled.
func newGroup(*exec.Cmd) {}

// signalGroup ends the shell itself, whatever the signal.
func signalGroup(cmd *exec.Cmd, _ syscall.Signal) { _ = cmd.Process.Kill() }
