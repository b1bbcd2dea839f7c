package jailtest

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// VMMRules are those of a VMM with all that there is; it is the first process of its
// namespace.
func VMMRules() []jail.Rule {
	return slices.Concat(jail.RuntimeOf(1), machine.Jail(&protocol.Spec{HotplugSlots: 1}).Filter.Rules)
}

// Tests that show which rules are used.
type Tests string

const (
	// Processes are those of vmm/ashlar-vmm, with small guests of a few instructions.
	Processes Tests = "vmm/ashlar-vmm"
	// Guests are those of vmm/virtio/internal/guesttest, with a Linux guest and all devices.
	Guests Tests = "vmm/virtio/internal/guesttest"
)

// A Use is what VMMs have used of their jails in the tests of one program.
type Use struct {
	tests Tests
	rules []jail.Rule

	mu   sync.Mutex
	used map[string]bool
}

// NewUse is a Use of nothing yet.
func NewUse(tests Tests, rules []jail.Rule) *Use {
	return &Use{tests: tests, rules: rules, used: make(map[string]bool)}
}

// Note adds what one process has used that ends, and fails for what no rule has let pass.
func (u *Use) Note(t *testing.T, r *Recording) {
	t.Helper()
	rules, unknown, err := r.Used()
	if err != nil {
		t.Error(err)
	}
	if len(unknown) > 0 {
		t.Errorf("calls that no rule allows: %q", unknown)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, r := range rules {
		u.used[r] = true
	}
}

// Check says, once all tests of a program have passed, which rules are spare: those that
// these tests are to use and have not. It returns the exit code of the program.
func (u *Use) Check(code int) int {
	if code != 0 || flag.Lookup("test.run").Value.String() != "" {
		return code
	}
	for _, r := range u.rules {
		name := r.String()
		by, known := shown[name]
		if !known {
			by = use{by: Processes}
		}
		if by.by == u.tests && !u.used[name] {
			fmt.Fprintf(os.Stderr, "FAIL: the rule %q (%s) is spare: no test uses it\n", name, r.Reason)
			code = 1
		}
	}
	return code
}
