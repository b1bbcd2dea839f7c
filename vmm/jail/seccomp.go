package jail

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Rule lets one system call pass when all of Args hold. Several rules for
// one system call are alternatives.
type Rule struct {
	// Syscall is its number (unix.SYS_…).
	Syscall uint32
	// Reason says what needs it.
	Reason string
	Args   []Arg
	// Errno, where not 0, is what the call returns instead of being made: for
	// what a library tries and can do without.
	Errno syscall.Errno
	trace uint16 // what a tracer is told of it; 0 where it is not to stop
}

// An Arg compares one argument of a system call: argument&Mask == Value, over
// all 64 bits.
type Arg struct {
	Index       int // 0 to 5
	Mask, Value uint64
}

// Equal holds when argument i is v.
func Equal(i int, v uint64) Arg { return Arg{Index: i, Mask: ^uint64(0), Value: v} }

// Masked holds when argument i, of which only the bits of mask count, is v.
func Masked(i int, mask, v uint64) Arg { return Arg{Index: i, Mask: mask, Value: v} }

// Allow returns a Rule.
func Allow(nr uint32, reason string, args ...Arg) Rule {
	return Rule{Syscall: nr, Reason: reason, Args: args}
}

// Refuse returns a Rule that lets the call fail with errno.
func Refuse(nr uint32, errno syscall.Errno, reason string, args ...Arg) Rule {
	return Rule{Syscall: nr, Reason: reason, Args: args, Errno: errno}
}

const (
	maxProgram = unix.BPF_MAXINSNS
	// x32Bit marks a call by the x32 ABI, which has numbers of its own.
	x32Bit = 0x40000000

	// Offsets in struct seccomp_data (linux/seccomp.h).
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

// assemble turns rules into a filter program (seccomp(2), classic BPF). Every
// call that no rule lets pass kills the process, or is logged with logOnly.
func assemble(rules []Rule, logOnly bool) ([]unix.SockFilter, error) {
	other := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	if logOnly {
		other = unix.SECCOMP_RET_LOG
	}
	prog := []unix.SockFilter{
		load(offsetArch),
		jumpEqual(unix.AUDIT_ARCH_X86_64, 1, 0),
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: x32Bit, Jt: 0, Jf: 1},
		answer(unix.SECCOMP_RET_KILL_PROCESS),
	}
	order, byCall, err := group(rules)
	if err != nil {
		return nil, err
	}
	for _, nr := range order {
		prog = append(prog, block(nr, byCall[nr], other)...)
	}
	prog = append(prog, answer(other))
	if len(prog) > maxProgram {
		return nil, fmt.Errorf("seccomp filter: %d instructions, at most %d allowed: join rules", len(prog), maxProgram)
	}
	return prog, nil
}

// group sorts rules by system call, in the order of first appearance.
func group(rules []Rule) (order []uint32, byCall map[uint32][]Rule, err error) {
	byCall = make(map[uint32][]Rule)
	for _, r := range rules {
		if r.Reason == "" {
			return nil, nil, fmt.Errorf("seccomp rule for call %d: has no reason", r.Syscall)
		}
		if len(r.Args) > 6 || r.Syscall >= x32Bit {
			return nil, nil, fmt.Errorf("seccomp rule for call %d: not a system call with at most 6 arguments", r.Syscall)
		}
		for _, a := range r.Args {
			if a.Index < 0 || a.Index > 5 || a.Value&^a.Mask != 0 {
				return nil, nil, fmt.Errorf("seccomp rule for call %d: argument %d can never match", r.Syscall, a.Index)
			}
		}
		if _, seen := byCall[r.Syscall]; !seen {
			order = append(order, r.Syscall)
		}
		byCall[r.Syscall] = append(byCall[r.Syscall], r)
	}
	return order, byCall, nil
}

// block checks one system call. It starts and falls through with the call's
// number in the accumulator.
func block(nr uint32, rules []Rule, other uint32) []unix.SockFilter {
	var body []unix.SockFilter
	closed := false // an alternative without conditions ends the list
	for _, r := range rules {
		body = append(body, alternative(r)...)
		if closed = len(r.Args) == 0; closed {
			break
		}
	}
	if !closed {
		body = append(body, answer(other))
	}
	if len(body) <= 255 {
		return append([]unix.SockFilter{jumpEqual(nr, 0, uint8(len(body)))}, body...)
	}
	return append([]unix.SockFilter{
		jumpEqual(nr, 1, 0),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(body))},
	}, body...)
}

// alternative answers r's action when all its arguments match, and goes on
// behind itself otherwise.
func alternative(r Rule) []unix.SockFilter {
	action := uint32(unix.SECCOMP_RET_ALLOW)
	if r.Errno != 0 {
		action = unix.SECCOMP_RET_ERRNO | uint32(r.Errno)&unix.SECCOMP_RET_DATA
	}
	if r.trace != 0 {
		action = unix.SECCOMP_RET_TRACE | uint32(r.trace)
	}
	code := []unix.SockFilter{answer(action)}
	// Backwards, so that each condition knows how far it is to the end.
	for i := len(r.Args) - 1; i >= 0; i-- {
		a := r.Args[i]
		offset := uint32(offsetArgs + 8*a.Index)
		code = append(condition(offset+4, uint32(a.Mask>>32), uint32(a.Value>>32), len(code)), code...)
		code = append(condition(offset, uint32(a.Mask), uint32(a.Value), len(code)), code...)
	}
	return code
}

// condition goes on when the 32-bit word at offset, masked, is value, and
// jumps over the rest of the alternative otherwise.
func condition(offset, mask, value uint32, rest int) []unix.SockFilter {
	if mask == 0 {
		return nil
	}
	code := []unix.SockFilter{load(offset)}
	if mask != ^uint32(0) {
		code = append(code, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask})
	}
	return append(code, jumpEqual(value, 0, uint8(rest)))
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jumpEqual(k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func answer(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// installFilter puts prog into force for every thread.
func installFilter(prog []unix.SockFilter) error {
	tid, err := seccompSetFilter(prog, unix.SECCOMP_FILTER_FLAG_TSYNC)
	if err != nil {
		return fmt.Errorf("install seccomp filter (CONFIG_SECCOMP_FILTER): %w", err)
	}
	if tid != 0 {
		return errors.New("install seccomp filter: a thread already has another one")
	}
	return nil
}
