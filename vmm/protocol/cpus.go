package protocol

// SetVCPUs asks for VCPUs vCPUs, 1 to Spec.MaxVCPUs: those that are missing are there when
// the response comes, and the guest is asked to give up the highest of those that are too
// many, which it does when and as far as it can. Status.VCPUs says how far it is.
const SetVCPUs Method = "set-vcpus"

// VCPUs says how many vCPUs a guest has.
type VCPUs struct {
	// Present are there now, Target were asked for last.
	Present int `json:"present"`
	Target  int `json:"target"`
	// Refused are how many of those too many the guest has said that it keeps.
	Refused int `json:"refused,omitempty"`
}

// Most is the largest number of vCPUs that the guest can come to have.
func (s *Spec) Most() int { return max(s.VCPUs, s.MaxVCPUs) }
