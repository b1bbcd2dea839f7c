package kvm

// What is unsafe here is what is in run_unsafe.go: a view of the mapping that KVM
// shares, which is large enough for runPage.

func (r *runMapping) hyperV() exitHyperV { return *(*exitHyperV)(r.union()) }
