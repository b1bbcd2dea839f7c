package arch

import "github.com/ashlar-hv/ashlar/vmm/kvm"

// Registers of a leaf.
const (
	eax = iota
	ebx
	ecx
	edx
)

// A featureWord is a register of CPUID that holds feature bits.
type featureWord struct {
	function, index uint32
	register        int
	// passed are bits that a baseline leaves as KVM supports them: they tell
	// how a CPU behaves and what protects it, not what programs may use.
	passed uint32
	// names are those of the bits that baselines know, as in /proc/cpuinfo.
	names [32]string
}

// of is the word in entries, 0 where there is none.
func (w featureWord) of(entries []kvm.CPUIDEntry) uint32 {
	if e := lookup(entries, w.function, w.index); e != nil {
		return *registers(e)[w.register]
	}
	return 0
}

// amdSame are the bits of leaf 0x80000001 that AMD repeats from leaf 1.
const amdSame = 0x0183f3ff

// featureWords are all words of features (Intel SDM volume 2, CPUID; AMD APM
// volume 3 appendix E). A word that has neither names nor passed bits is empty
// in a baseline.
var featureWords = []featureWord{
	{function: leafFeatures, register: ecx, names: [32]string{
		0: "pni", 1: "pclmulqdq", 9: "ssse3", 12: "fma", 13: "cx16", 17: "pcid", 19: "sse4_1", 20: "sse4_2",
		22: "movbe", 23: "popcnt", 25: "aes", 26: "xsave", 28: "avx", 29: "f16c", 30: "rdrand",
	}},
	{function: leafFeatures, register: edx, passed: 1 << 27, names: [32]string{ // self-snoop
		0: "fpu", 2: "de", 3: "pse", 4: "tsc", 5: "msr", 6: "pae", 7: "mce", 8: "cx8", 9: "apic", 11: "sep",
		12: "mtrr", 13: "pge", 14: "mca", 15: "cmov", 16: "pat", 17: "pse36", 19: "clflush", 23: "mmx",
		24: "fxsr", 25: "sse", 26: "sse2",
	}},
	{function: leafExtended, register: ebx, passed: 1<<6 | 1<<13, names: [32]string{ // of the x87 unit
		0: "fsgsbase", 1: "tsc_adjust", 3: "bmi1", 5: "avx2", 7: "smep", 8: "bmi2", 9: "erms", 10: "invpcid",
		16: "avx512f", 17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 23: "clflushopt", 24: "clwb",
		28: "avx512cd", 30: "avx512bw", 31: "avx512vl",
	}},
	{function: leafExtended, register: ecx},
	// MD_CLEAR, SPEC_CTRL, STIBP, FLUSH_L1D, ARCH_CAPABILITIES, SSBD.
	{function: leafExtended, register: edx, passed: 1<<10 | 1<<26 | 1<<27 | 1<<28 | 1<<29 | 1<<31},
	{function: leafExtended, index: 1, register: eax},
	{function: leafExtended, index: 1, register: ebx},
	{function: leafExtended, index: 1, register: ecx},
	{function: leafExtended, index: 1, register: edx},
	// PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL, MCDT_NO.
	{function: leafExtended, index: 2, register: edx, passed: 1<<6 - 1},
	{function: leafXSAVE, index: 1, register: eax, names: [32]string{0: "xsaveopt", 1: "xsavec", 2: "xgetbv1"}},
	{function: leafXSAVE, index: 1, register: ecx}, // no supervisor states
	{function: leafXSAVE, index: 1, register: edx},
	// CmpLegacy and TopologyExtensions belong to the topology; LAHF in 64-bit mode,
	// LZCNT, PREFETCHW.
	{function: leafAMDFeatures, register: ecx, passed: amdECXLegacyMP | 1<<22, names: [32]string{
		0: "lahf_lm", 5: "abm", 8: "3dnowprefetch",
	}},
	{function: leafAMDFeatures, register: edx, passed: amdSame, names: [32]string{
		11: "syscall", 20: "nx", 26: "pdpe1gb", 27: "rdtscp", 29: "lm",
	}},
	{function: leafPower, register: edx}, // an invariant TSC does not outlast a migration
	// IBPB, IBRS and STIBP with their preferences, SSBD in its forms, PSFD, BTC_NO, IBPB_RET.
	{function: leafAddresses, register: ebx, passed: 1<<12 | 0x3f<<14 | 7<<24 | 7<<28},
	// NO_NESTED_DATA_BP, LFENCE_RDTSC, VERW_CLEAR, NULL_SEL_CLR_BASE, AUTOIBRS; SBPB and what follows.
	{function: leafAMDExtended, register: eax, passed: 1<<0 | 1<<2 | 1<<5 | 1<<6 | 1<<8 | 0xf<<27},
	{function: leafAMDExtended, register: ecx, passed: 1<<1 | 1<<2}, // TSA_SQ_NO, TSA_L1_NO
}
