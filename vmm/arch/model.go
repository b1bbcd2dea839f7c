package arch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/processor"
)

// ErrModel says that there is no model of such a name.
var ErrModel = errors.New("no such CPU model")

// A MissingFeaturesError says what a host lacks for a baseline.
type MissingFeaturesError struct {
	Model    string
	Features []string // by Linux's names
}

func (e *MissingFeaturesError) Error() string {
	return fmt.Sprintf("the CPU model %s needs what KVM on this host has not: %s", e.Model, strings.Join(e.Features, ", "))
}

// The baselines are the levels of the x86-64 psABI (section 3.1.1), each with
// what every server CPU of that level has besides: from Nehalem, from Haswell
// and Zen, from Skylake-SP and Zen 4 on. A name with a dot in front is the
// baseline that it adds to.
var baselines = map[string]string{
	"x86-64-v1": "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 " +
		"syscall nx lm",
	"x86-64-v2": ".x86-64-v1 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 rdtscp tsc_adjust",
	"x86-64-v3": ".x86-64-v2 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave " +
		"aes pclmulqdq rdrand fsgsbase smep pdpe1gb xsaveopt",
	"x86-64-v4": ".x86-64-v3 avx512f avx512bw avx512cd avx512dq avx512vl " +
		"pcid invpcid erms smap rdseed adx clflushopt clwb 3dnowprefetch xsavec xgetbv1",
}

// Model makes what CPUID shows of the model name, "" being processor.HostModel, from what
// KVM supports. A baseline is the same on all hosts of a maker, but for
// family, model and stepping, caches, and what says how the CPU is to be
// protected from speculation. Errors wrap ErrModel or are *MissingFeaturesError.
func Model(name string, supported []kvm.CPUIDEntry) ([]kvm.CPUIDEntry, error) {
	out := slices.Clone(supported)
	if name != "" && name != processor.HostModel {
		want, err := baseline(name)
		if err != nil {
			return nil, err
		}
		if missing := want.missing(supported); len(missing) > 0 {
			return nil, &MissingFeaturesError{name, missing}
		}
		out = want.apply(out)
	}
	return consistent(out), nil
}

// baseline is the features of the baseline name.
func baseline(name string) (featureSet, error) {
	words, ok := baselines[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q; there are %s", ErrModel, name, strings.Join(processor.Models(), ", "))
	}
	set := make(featureSet)
	for w := range strings.FieldsSeq(words) {
		if lower, ok := strings.CutPrefix(w, "."); ok {
			base, err := baseline(lower)
			if err != nil {
				return nil, err
			}
			set.add(base)
			continue
		}
		set[w] = true
	}
	return set, nil
}

// A featureSet is a set of Linux's names of features.
type featureSet map[string]bool

func (s featureSet) add(other featureSet) {
	for name := range other {
		s[name] = true
	}
}

// missing are the features that entries lack.
func (s featureSet) missing(entries []kvm.CPUIDEntry) []string {
	var out []string
	for _, w := range featureWords {
		have := w.of(entries)
		for bit, name := range w.names {
			if s[name] && have&(1<<bit) == 0 {
				out = append(out, name)
			}
		}
	}
	return out
}

// mask is the bits of w that are in the set.
func (s featureSet) mask(w featureWord) uint32 {
	m := w.passed
	for bit, name := range w.names {
		if s[name] {
			m |= 1 << bit
		}
	}
	return m
}

// baselineLeaf is the highest basic leaf that baselines have; baselineBits is
// how wide their physical addresses are at most: those of all servers.
const (
	baselineLeaf = leafXSAVE
	baselineBits = 46
)

// apply leaves entries with the features of the set.
func (s featureSet) apply(entries []kvm.CPUIDEntry) []kvm.CPUIDEntry {
	out := entries[:0]
	for _, e := range entries {
		switch {
		case e.Function > baselineLeaf && e.Function < leafKVM:
			continue
		case e.Function == leafVendor:
			e.EAX = min(e.EAX, baselineLeaf)
		case e.Function == leafExtended && e.Index == 0:
			e.EAX = min(e.EAX, 2)
		case e.Function == leafPMU || e.Function == leafAMDPMU || e.Function == leafAMDCrypt:
			e.EAX, e.EBX, e.ECX, e.EDX = 0, 0, 0, 0
		case e.Function == leafAddresses:
			e.EAX = min(e.EAX&0xff, baselineBits) | 48<<8
		}
		for r := range 4 {
			if w := wordOf(e.Function, e.Index, r); w != nil {
				*registers(&e)[r] &= s.mask(*w)
			}
		}
		out = append(out, e)
	}
	return out
}

// registers are EAX to EDX of e.
func registers(e *kvm.CPUIDEntry) [4]*uint32 { return [4]*uint32{&e.EAX, &e.EBX, &e.ECX, &e.EDX} }

// wordOf finds the word of features that a register holds, or nil.
func wordOf(function, index uint32, register int) *featureWord {
	for i := range featureWords {
		if w := &featureWords[i]; w.function == function && w.index == index && w.register == register {
			return w
		}
	}
	return nil
}
