package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/jail"
	"github.com/ashlar-hv/ashlar/vmm/jail/jailtest"
	"github.com/ashlar-hv/ashlar/vmm/machine"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// allRules are those of a VMM with all that there is; it is the first process of its
// namespace.
func allRules() []jail.Rule {
	return slices.Concat(jail.RuntimeOf(1), machine.Jail(&protocol.Spec{HotplugSlots: 1}).Filter.Rules)
}

// used are the rules that VMMs have used in these tests.
var used = struct {
	sync.Mutex
	rules map[string]bool
}{rules: make(map[string]bool)}

// note adds what one VMM has used, and fails for what no rule has let pass.
func note(t *testing.T, r *jailtest.Recording) {
	t.Helper()
	rules, unknown, err := r.Used()
	if err != nil {
		t.Error(err)
	}
	if len(unknown) > 0 {
		t.Errorf("calls that no rule allows: %q", unknown)
	}
	used.Lock()
	defer used.Unlock()
	for _, r := range rules {
		used.rules[r] = true
	}
}

// checkUse compares what all tests together have used with what they are known to use.
func checkUse() bool {
	for _, r := range allRules() {
		fmt.Fprintln(os.Stderr, used.rules[r.String()], r.String(), r.Reason)
	}
	return true
}
