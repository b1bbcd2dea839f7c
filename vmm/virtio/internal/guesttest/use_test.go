//go:build roottest

package guesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/seqpacket"
)

// marked is the argument of this program where it is a VMM whose jail marks the rules that a
// guest's drivers use.
const marked = "marked-vmm"

// use is what guests use of their VMMs' jails in these tests.
var use = jailtest.NewUse(jailtest.Guests, jailtest.VMMRules(0))

func TestMain(m *testing.M) {
	jailtest.RecordMain(jailtest.VMMRules)
	if len(os.Args) == 2 && os.Args[1] == marked {
		if err := markedVMM(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(use.Check(m.Run()))
}

// markedVMM does what ashlar-vmm does for one guest that is never asked for more than its
// console.
func markedVMM() error {
	l, err := net.FileListener(os.NewFile(protocol.ListenFD, "listen"))
	if err != nil {
		return err
	}
	u, err := l.(*net.UnixListener).AcceptUnix()
	if err != nil {
		return err
	}
	c := seqpacket.New(u)
	var first protocol.Request
	files, err := c.Recv(&first)
	if err != nil {
		return err
	}
	g, perr := machine.FromSpec(first.Spec, files)
	if perr != nil {
		return perr
	}
	config := machine.Jail(first.Spec)
	config.Filter.Trace = jailtest.ByGuests
	if err := jail.Enter(config); err != nil {
		return err
	}
	if perr := g.Load(); perr != nil {
		return perr
	}
	if err := g.Start(); err != nil {
		return err
	}
	if err := c.Send(protocol.Response{ID: first.ID}); err != nil {
		return err
	}
	var second protocol.Request
	if _, err := c.Recv(&second); err != nil {
		return err
	}
	viewer, err := g.Hub.Attach()
	if err != nil {
		return err
	}
	if err := errors.Join(c.Send(protocol.Response{ID: second.ID}, viewer), viewer.Close()); err != nil {
		return err
	}
	<-g.Done()
	b, err := json.Marshal(g.Result())
	if err == nil {
		err = g.Close()
	}
	if err == nil {
		_, err = os.NewFile(protocol.ResultFD, "result").Write(b)
	}
	return err
}

// startMarked starts such a VMM, and records what it uses.
func startMarked(t *testing.T) *vmm {
	t.Helper()
	v := startProgram(t, "/proc/self/exe", marked)
	recording, err := jailtest.RecordMarked(v.cmd.Process.Pid, filepath.Join(t.TempDir(), "calls"))
	must(t, err)
	t.Cleanup(func() {
		v.cmd.Process.Kill()
		use.Note(t, recording)
	})
	return v
}
