// Package thread says where the calling thread runs: in which control group, and on which
// CPUs of the host (cgroups(7), sched_setaffinity(2)). Neither can be said in the jail.
package thread

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Settle makes the calling thread one of a control group, whose cgroup.threads is open as
// group (nil leaves it where it is), and has it run on cpus alone. The goroutine has
// locked its thread. Threads that it makes inherit both.
func Settle(group *os.File, cpus []int) error {
	if group != nil {
		// 0 is the thread that writes.
		if _, err := group.WriteString("0"); err != nil {
			return fmt.Errorf("move thread to its control group: %w", err)
		}
	}
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("run thread on CPUs of the host %v: %w", cpus, err)
	}
	return nil
}
