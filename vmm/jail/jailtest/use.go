package jailtest

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// VMMRules are those of a VMM with all that there is; it is the first process of its
// namespace.
func VMMRules(int) []jail.Rule {
	return slices.Concat(jail.RuntimeOf(1), machine.Jail(&protocol.Spec{HotplugSlots: 1, VFIO: &protocol.VFIO{}}).Filter.Rules)
}

// Tests that record which rules are used.
type Tests string

const (
	// Processes are those of vmm/ashlar-vmm, with small guests of a few instructions.
	Processes Tests = "vmm/ashlar-vmm"
	// Guests are those of vmm/virtio/internal/guesttest, with a Linux guest and its drivers.
	Guests Tests = "vmm/virtio/internal/guesttest"
	// Devices are those of the same that give guests devices of the host's.
	Devices Tests = "vmm/virtio/internal/guesttest, devices"
	// Control are those of mgmt/control/ashlar-control, the only ones that use control's jail.
	Control Tests = "mgmt/control/ashlar-control"
)

// A Use is what VMMs have used of their jails in the tests of one program.
type Use struct {
	tests Tests
	rules []jail.Rule

	mu   sync.Mutex
	used map[int]bool
}

// NewUse is a Use of nothing yet, of jails with these rules.
func NewUse(tests Tests, rules []jail.Rule) *Use {
	return &Use{tests: tests, rules: rules, used: make(map[int]bool)}
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
		if u.tests == Guests || u.tests == Devices {
			t.Logf("used: {%s}, %s", u.rules[r], u.rules[r].Reason)
		}
	}
}

// Check says, once all tests have passed, which rules are spare: those that these tests are
// to use and have not. all is the -test.run with which a program runs them all; shown are those that
// record, where not every one does. Where -test.skip leaves one of these out, as another machine of
// roottest does with tests that have passed, nothing can be said. It returns the exit code of the program.
func (u *Use) Check(code int, all string, shown ...string) int {
	if code != 0 || flag.Lookup("test.run").Value.String() != all {
		return code
	}
	if skip := flag.Lookup("test.skip").Value.String(); skip != "" && slices.ContainsFunc(shown, regexp.MustCompile(skip).MatchString) {
		fmt.Fprintln(os.Stderr, "rules of the jail: not looked at, tests that use them have been skipped")
		return code
	}
	for i, r := range u.rules {
		if u.shows(r) && !u.usedLike(r.String()) {
			fmt.Fprintf(os.Stderr, "FAIL: the rule {%s} (%s), number %d, is spare: no test uses it\n", r, r.Reason, i)
			code = 1
		}
	}
	return code
}

// usedLike tells whether the first rule of that name has been used: several packages may
// need the same.
func (u *Use) usedLike(name string) bool {
	return u.used[slices.IndexFunc(u.rules, func(r jail.Rule) bool { return r.String() == name })]
}

// shows tells whether the tests of u are those that show that r is used.
func (u *Use) shows(r jail.Rule) bool {
	if r.Errno != 0 {
		return false // it gives nothing
	}
	switch u.tests {
	case Control:
		return controlSpare[r.String()] == ""
	case Guests:
		return vmmSpare[r.String()] == guest
	case Devices:
		return vmmSpare[r.String()] == device
	}
	return vmmSpare[r.String()] == ""
}
