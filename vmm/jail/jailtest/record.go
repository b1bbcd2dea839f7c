// Package jailtest shows for tests that a jail (vmm/jail) is what it is said to be: Record
// tells which of its rules a process uses, Attempts what a process does that somebody
// has taken over. After ptrace(2) and the manual pages of each system call.
package jailtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/vmm/jail"
)

// recorder and markedRecorder are argv[0] of a test program that is to Record, or RecordMarked.
const (
	recorder       = "record-calls"
	markedRecorder = "record-marked-calls"
)

// ready is what a recorder says when nothing escapes it any more.
const ready = "ready\n"

// RecordMain does what a recorder does where this process is one, and ends it: for the
// start of TestMain. rules are those of the jail that a process will be in; what is not
// among them is recorded, too.
func RecordMain(rules func(pid int) []jail.Rule) {
	name := filepath.Base(os.Args[0])
	if name != recorder && name != markedRecorder || len(os.Args) != 3 {
		return
	}
	pid, err := strconv.Atoi(os.Args[1])
	if err == nil {
		t := &tracer{rules: rules(pid), marked: name == markedRecorder, used: make(map[string]bool)}
		err = t.record(pid, os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "recorder:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Recording is under way, or done.
type Recording struct {
	cmd  *exec.Cmd
	file string
}

// Record starts to record the system calls of process pid, which is not in its jail yet.
// The program is this one again: see RecordMain. file is where the result goes.
func Record(pid int, file string) (*Recording, error) { return start(recorder, pid, file) }

// RecordMarked is Record for a process whose jail has a Filter.Trace: it records what that
// marks and nothing else, and is no burden for other calls.
func RecordMarked(pid int, file string) (*Recording, error) { return start(markedRecorder, pid, file) }

func start(name string, pid int, file string) (*Recording, error) {
	r := &Recording{cmd: exec.Command("/proc/self/exe"), file: file}
	r.cmd.Args = []string{name, strconv.Itoa(pid), file}
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != ready {
		return nil, fmt.Errorf("record: the recorder says %q, %w", line, err)
	}
	return r, nil
}

// Used waits for the end of the process and returns what it has used: the place of each
// rule, and of each call that no rule knew its number and arguments.
func (r *Recording) Used() (rules []int, unknown []string, err error) {
	if err := r.cmd.Wait(); err != nil {
		return nil, nil, fmt.Errorf("record: %w", err)
	}
	b, err := os.ReadFile(r.file)
	if err != nil {
		return nil, nil, fmt.Errorf("record: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if what, ok := strings.CutPrefix(line, unknownCall); ok {
			unknown = append(unknown, what)
			continue
		}
		i, err := strconv.Atoi(line)
		if err != nil {
			return nil, nil, fmt.Errorf("record: %w", err)
		}
		rules = append(rules, i)
	}
	return rules, unknown, nil
}

const unknownCall = "unknown "

// A tracer follows the threads of one process.
type tracer struct {
	rules    []jail.Rule
	marked   bool // only calls of the rules that jail.Filter.Trace has marked stop
	confined bool // the filter is in force
	used     map[string]bool
}

// Options of PTRACE_SEIZE.
const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESECCOMP

// syscallStop is the signal of a stop at a system call (PTRACE_O_TRACESYSGOOD).
const syscallStop = unix.SIGTRAP | 0x80

func (t *tracer) record(pid int, file string) error {
	runtime.LockOSThread() // it is a thread that traces
	if err := seize(pid); err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, ready); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECHILD {
			break
		}
		if err != nil {
			return fmt.Errorf("wait: %w", err)
		}
		if !status.Stopped() {
			continue
		}
		var deliver int
		switch s := status.StopSignal(); {
		case s == syscallStop:
			t.call(tid)
		case int(status)>>16 == unix.PTRACE_EVENT_SECCOMP:
			if n, err := unix.PtraceGetEventMsg(tid); err == nil && n > 0 {
				t.used[strconv.Itoa(int(n)-1)] = true
			}
		case int(status)>>16 == 0: // a signal of the process's own
			deliver = int(s)
		}
		// A thread that was killed meanwhile is gone: Wait4 tells.
		if t.marked {
			_ = unix.PtraceCont(tid, deliver)
		} else {
			_ = unix.PtraceSyscall(tid, deliver)
		}
	}
	lines := make([]string, 0, len(t.used))
	for u := range t.used {
		lines = append(lines, u)
	}
	slices.Sort(lines)
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600)
}

// seize attaches to all threads of pid, those included that it makes meanwhile.
func seize(pid int) error {
	have := make(map[int]bool)
	for {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		more := false
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || have[tid] {
				continue
			}
			have[tid], more = true, true
			_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(tid), 0, options, 0, 0)
			if errno == unix.EPERM || errno == unix.ESRCH {
				continue // attached already, by its maker; or gone
			}
			if errno != 0 {
				return fmt.Errorf("seize thread %d: %w", tid, errno)
			}
			if err := unix.PtraceInterrupt(tid); err != nil && err != unix.ESRCH {
				return fmt.Errorf("interrupt thread %d: %w", tid, err)
			}
		}
		if !more {
			return nil
		}
	}
}

// filtered tells whether a thread is under a filter (proc_pid_status(5)).
func filtered(tid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	return err == nil && bytes.Contains(b, []byte("\nSeccomp:\t2\n"))
}

// call notes the call that thread tid makes, or has made.
func (t *tracer) call(tid int) {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) != nil {
		return // killed meanwhile
	}
	if int64(regs.Rax) != -int64(unix.ENOSYS) {
		return // it returns
	}
	// The process may have gone into its jail before it was attached to.
	if t.confined = t.confined || filtered(tid); !t.confined {
		return
	}
	args := [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9}
	if i := jail.Match(t.rules, uint32(regs.Orig_rax), args); i >= 0 {
		t.used[strconv.Itoa(i)] = true
		return
	}
	t.used[fmt.Sprintf("%s%d %#x", unknownCall, regs.Orig_rax, args)] = true
}
