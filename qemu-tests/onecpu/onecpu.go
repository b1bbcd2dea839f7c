// Package onecpu starts QEMU's software emulation with all of its threads on one CPU of the machine.
//
// A CPU with nested virtualization (SVM) cannot have its threads run side by side. By what was seen of machines that stood, QEMU 10.0 takes
// the bit of a virtual interrupt out of the word of pending interrupts at each exit of a nested guest, by the CPU's thread without a lock
// (do_vmexit in target/i386/tcg/system/svm_helper.c), while another thread, which has the lock, may be putting in the
// one of a timer or a device. That is lost then: the interrupt stays in the local APIC's IRR, the CPU halts, and the machine stands
// until the next one. Each side is one instruction, which a switch of threads on the same CPU does not cut in two.
package onecpu

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile keeps two of a user's from choosing at a time.
const lockFile = "ashlar-onecpu-%d.lock"

// Start calls start, which starts QEMU by exec.Cmd's Start, in such a way that it and its threads have one CPU: the one,
// of those that this process may use, that the fewest others have which were started like it.
func Start(start func() error) error {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), fmt.Sprintf(lockFile, os.Getuid())), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("choose a CPU for QEMU: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("choose a CPU for QEMU: lock %s: %w", lock.Name(), err)
	}
	// What a thread may use is what a process that it starts may use.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var mine, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		return fmt.Errorf("choose a CPU for QEMU: %w", err)
	}
	one.Set(quietest(&mine, taken("/proc")))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choose a CPU for QEMU: %w", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &mine) }()
	return start()
}

// quietest is the CPU of a set that is taken least often.
func quietest(set *unix.CPUSet, taken map[int]int) int {
	best := -1
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) && (best < 0 || taken[cpu] < taken[best]) {
			best = cpu
		}
	}
	return best
}

// taken says how many QEMU processes there are with that CPU alone, by proc(5).
func taken(proc string) map[int]int {
	out := make(map[int]int)
	list, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "status"))
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var name, cpus string
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(line, ":")
			switch k {
			case "Name":
				name = strings.TrimSpace(v)
			case "Cpus_allowed_list":
				cpus = strings.TrimSpace(v)
			}
		}
		if cpu, err := strconv.Atoi(cpus); err == nil && strings.HasPrefix(name, "qemu-system") {
			out[cpu]++
		}
	}
	return out
}
