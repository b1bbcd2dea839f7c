//go:build roottest && !hardware

package guesttest

import "github.com/ashlar-hv/ashlar/vmm/jail/jailtest"

// kind is what these tests show, and every the -test.run that runs them all.
const (
	kind  = jailtest.Guests
	every = ""
)

// recorded are the tests whose VMMs are recorded.
var recorded = []string{"TestGuest", "TestCalls"}
