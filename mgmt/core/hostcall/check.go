package hostcall

// HostCheck fills Check.
const HostCheck Method = "host-check"

// A CheckResult is what came of a check.
type CheckResult string

// Results.
const (
	Passed CheckResult = "passed"
	Weak   CheckResult = "weak"
	// Unknown: the host does not tell.
	Unknown CheckResult = "unknown"
)

// A Finding is what came of one check of the host.
type Finding struct {
	Name   string      `json:"name"` // of layout.Checks, with a slash and a part where there are several
	Result CheckResult `json:"result"`
	// Detail is what was found, Advice what to do about it.
	Detail string `json:"detail,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Required: guests are started only where it has passed.
	Required bool `json:"required,omitempty"`
}

// A HostCheckResult is what came of all.
type HostCheckResult struct {
	Findings []Finding `json:"findings"`
	// Refused: guests are not started, as a check that is required has not passed.
	Refused bool `json:"refused,omitempty"`
}
