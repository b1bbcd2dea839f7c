package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// TestMain lets the program be a core that has given up what it does not keep, and starts a
// process for a jail.
func TestMain(m *testing.M) {
	switch os.Getenv("ASHLAR_CORE_TEST") {
	case "core":
		runtime.LockOSThread()
		err := jail.KeepOnly(capabilities)
		if err == nil {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"ASHLAR_CORE_TEST=jail"}
			cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
			cmd.SysProcAttr = jail.Attributes(100007, 100008)
			err = cmd.Run()
		}
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	case "jail":
		if err := jail.Enter(jail.Config{UID: 100007, GID: 100008}); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString("in jail")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// With the capabilities that core keeps it can start what is to be in a jail.
func TestCapabilitiesStartJails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test needs root: core is")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"ASHLAR_CORE_TEST=core"}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "in jail") {
		t.Errorf("%q, %v", out, err)
	}
}
