package jail

import (
	"encoding/binary"
	"math/rand/v2"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A call is a struct seccomp_data (linux/seccomp.h).
type call struct {
	nr   uint32
	arch uint32
	args [6]uint64
}

// interpret runs a filter as bpf(4) says. It fails on what the kernel would
// not load.
func interpret(t *testing.T, prog []unix.SockFilter, c call) uint32 {
	t.Helper()
	var data [64]byte
	binary.LittleEndian.PutUint32(data[offsetNumber:], c.nr)
	binary.LittleEndian.PutUint32(data[offsetArch:], c.arch)
	for i, a := range c.args {
		binary.LittleEndian.PutUint64(data[offsetArgs+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(prog); pc++ {
		jump := func(yes bool) {
			if yes {
				pc += int(prog[pc].Jt)
			} else {
				pc += int(prog[pc].Jf)
			}
		}
		k := prog[pc].K
		switch prog[pc].Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[k:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			jump(acc == k)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			jump(acc >= k)
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
		case unix.BPF_RET | unix.BPF_K:
			return k
		default:
			t.Fatalf("instruction %d: code %#x", pc, prog[pc].Code)
		}
	}
	t.Fatal("the program runs over its end")
	return 0
}

// allowed says by the rules alone what the filter has to answer.
func allowed(rules []Rule, c call) uint32 {
	if c.arch != unix.AUDIT_ARCH_X86_64 || c.nr >= x32Bit {
		return unix.SECCOMP_RET_KILL_PROCESS
	}
	for _, r := range rules {
		match := r.Syscall == c.nr
		for _, a := range r.Args {
			match = match && c.args[a.Index]&a.Mask == a.Value
		}
		if match && r.Errno != 0 {
			return unix.SECCOMP_RET_ERRNO | uint32(r.Errno)
		}
		if match {
			return unix.SECCOMP_RET_ALLOW
		}
	}
	return unix.SECCOMP_RET_KILL_PROCESS
}

var testRules = []Rule{
	Allow(1, "plain"),
	Allow(2, "one", Equal(0, 5)),
	Allow(2, "other", Equal(1, 0xffffffff00000001), Masked(2, 0xf0, 0x30)),
	Allow(3, "never executable", Masked(2, unix.PROT_EXEC, 0)),
	Refuse(4, syscall.ENOENT, "gone"),
	Allow(5, "six", Equal(0, 0), Equal(1, 1), Equal(2, 2), Equal(3, 3), Equal(4, 4), Equal(5, 1<<63)),
	Refuse(5, syscall.EPERM, "rest", Masked(0, 1<<40, 1<<40)),
}

func TestFilter(t *testing.T) {
	prog, err := assemble(testRules, false)
	if err != nil {
		t.Fatal(err)
	}
	const x86 = unix.AUDIT_ARCH_X86_64
	kill, allow := uint32(unix.SECCOMP_RET_KILL_PROCESS), uint32(unix.SECCOMP_RET_ALLOW)
	tests := []struct {
		name string
		call call
		want uint32
	}{
		{"plain", call{1, x86, [6]uint64{9, 9, 9}}, allow},
		{"unknown", call{99, x86, [6]uint64{}}, kill},
		{"x32", call{1 | x32Bit, x86, [6]uint64{}}, kill},
		{"minus one", call{0xffffffff, x86, [6]uint64{}}, kill},
		{"32-bit program", call{1, unix.AUDIT_ARCH_I386, [6]uint64{}}, kill},
		{"first alternative", call{2, x86, [6]uint64{5}}, allow},
		{"high half differs", call{2, x86, [6]uint64{5 | 1<<32}}, kill},
		{"second alternative", call{2, x86, [6]uint64{0, 0xffffffff00000001, 0xabc3f}}, allow},
		{"second, mask differs", call{2, x86, [6]uint64{0, 0xffffffff00000001, 0xabc4f}}, kill},
		{"second, low half only", call{2, x86, [6]uint64{0, 1, 0x30}}, kill},
		{"not executable", call{3, x86, [6]uint64{0, 0, 3}}, allow},
		{"executable", call{3, x86, [6]uint64{0, 0, 7}}, kill},
		{"refused", call{4, x86, [6]uint64{}}, unix.SECCOMP_RET_ERRNO | uint32(syscall.ENOENT)},
		{"six", call{5, x86, [6]uint64{0, 1, 2, 3, 4, 1 << 63}}, allow},
		{"five of six", call{5, x86, [6]uint64{0, 1, 2, 3, 4, 0}}, kill},
		{"the rest", call{5, x86, [6]uint64{1<<40 | 7}}, unix.SECCOMP_RET_ERRNO | uint32(syscall.EPERM)},
	}
	for _, tt := range tests {
		if got := interpret(t, prog, tt.call); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
	logged, err := assemble(testRules, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := interpret(t, logged, call{99, x86, [6]uint64{}}); got != unix.SECCOMP_RET_LOG {
		t.Errorf("LogOnly: %#x, want it logged", got)
	}
}

// TestLongBlock has more alternatives for one call than a jump spans.
func TestLongBlock(t *testing.T) {
	var rules []Rule
	for i := range uint64(200) {
		rules = append(rules, Allow(16, "ioctl", Equal(1, i*7)))
	}
	rules = append(rules, Allow(17, "behind it"))
	prog, err := assemble(rules, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []call{{nr: 17}, {nr: 16, args: [6]uint64{0, 199 * 7}}, {nr: 16, args: [6]uint64{0, 3}}, {nr: 18}} {
		c.arch = unix.AUDIT_ARCH_X86_64
		if got, want := interpret(t, prog, c), allowed(rules, c); got != want {
			t.Errorf("%+v: %#x, want %#x", c, got, want)
		}
	}
}

// TestFilterRandom compares filters of random rules with what the rules say.
func TestFilterRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var rules []Rule
		for range 1 + r.IntN(30) {
			rule := Allow(uint32(r.IntN(6)), "random")
			for range r.IntN(4) {
				mask := []uint64{^uint64(0), 3, 3 << 32, 1<<63 | 1, 0}[r.IntN(5)]
				rule.Args = append(rule.Args, Masked(r.IntN(6), mask, uint64(r.IntN(4))*(1<<32+1)&mask))
			}
			if r.IntN(4) == 0 {
				rule.Errno = syscall.EACCES
			}
			rules = append(rules, rule)
		}
		prog, err := assemble(rules, false)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			c := call{nr: uint32(r.IntN(7)), arch: unix.AUDIT_ARCH_X86_64}
			for i := range c.args {
				c.args[i] = uint64(r.IntN(4)) * (1<<32 + 1)
			}
			if got, want := interpret(t, prog, c), allowed(rules, c); got != want {
				t.Fatalf("%+v: %#x, want %#x, of rules %+v", c, got, want, rules)
			}
		}
	}
}

func TestAssembleRefuses(t *testing.T) {
	many := make([]Rule, maxProgram)
	for i := range many {
		many[i] = Allow(uint32(i), "one of many")
	}
	for name, rules := range map[string][]Rule{
		"no reason":            {{Syscall: 1}},
		"seventh argument":     {Allow(1, "x", Equal(6, 0))},
		"negative argument":    {Allow(1, "x", Equal(-1, 0))},
		"value outside mask":   {Allow(1, "x", Masked(0, 1, 2))},
		"x32":                  {Allow(x32Bit, "x")},
		"too many conditions":  {Allow(1, "x", make([]Arg, 7)...)},
		"too many for the BPF": many,
	} {
		if prog, err := assemble(rules, false); err == nil || prog != nil {
			t.Errorf("%s: %d instructions, %v; want an error", name, len(prog), err)
		}
	}
}

// TestRuleLists holds that no list of ours lets a process open a path, make
// another process, or run what it has written.
func TestRuleLists(t *testing.T) {
	all := append(append(append(Runtime(), Messages()...), Files()...), NoPaths()...)
	prog, err := assemble(all, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]call{
		"execve":      {nr: unix.SYS_EXECVE},
		"execveat":    {nr: unix.SYS_EXECVEAT},
		"open":        {nr: unix.SYS_OPEN},
		"openat":      {nr: unix.SYS_OPENAT},
		"openat2":     {nr: unix.SYS_OPENAT2},
		"fork":        {nr: unix.SYS_FORK},
		"clone":       {nr: unix.SYS_CLONE, args: [6]uint64{uint64(unix.SIGCHLD)}},
		"clone3":      {nr: unix.SYS_CLONE3},
		"ptrace":      {nr: unix.SYS_PTRACE},
		"socket":      {nr: unix.SYS_SOCKET, args: [6]uint64{unix.AF_INET, unix.SOCK_STREAM}},
		"inet pair":   {nr: unix.SYS_SOCKETPAIR, args: [6]uint64{unix.AF_INET}},
		"connect":     {nr: unix.SYS_CONNECT},
		"mount":       {nr: unix.SYS_MOUNT},
		"bpf":         {nr: unix.SYS_BPF},
		"memory file": {nr: unix.SYS_MEMFD_CREATE},
		"mmap exec":   {nr: unix.SYS_MMAP, args: [6]uint64{0, 4096, unix.PROT_EXEC}},
		"mprotect":    {nr: unix.SYS_MPROTECT, args: [6]uint64{0, 4096, unix.PROT_READ | unix.PROT_EXEC}},
		"pkey":        {nr: unix.SYS_PKEY_MPROTECT},
		"ioctl":       {nr: unix.SYS_IOCTL},
		"keyctl":      {nr: unix.SYS_KEYCTL},
		"io_uring":    {nr: unix.SYS_IO_URING_SETUP},
	} {
		c.arch = unix.AUDIT_ARCH_X86_64
		if got := interpret(t, prog, c); got == unix.SECCOMP_RET_ALLOW {
			t.Errorf("%s is allowed", name)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a`: "/a", `/a\040b`: "/a b", `\134040`: `\040`, `/\011\012`: "/\t\n"} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRightsOf(t *testing.T) {
	for _, tt := range []struct {
		abi            int
		fs, net, scope uint64
	}{
		{1, 1<<13 - 1, 0, 0}, {2, 1<<14 - 1, 0, 0}, {3, 1<<15 - 1, 0, 0}, {4, 1<<15 - 1, 3, 0}, {5, 1<<16 - 1, 3, 0}, {6, 1<<16 - 1, 3, 1}, {9, 1<<16 - 1, 3, 1},
	} {
		if fs, net, scope := rightsOf(tt.abi); fs != tt.fs || net != tt.net || scope != tt.scope {
			t.Errorf("rightsOf(%d) = %#x, %#x, %#x", tt.abi, fs, net, scope)
		}
	}
}
