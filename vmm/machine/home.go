package machine

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/ashlar-hv/ashlar/vmm/protocol"
	"github.com/ashlar-hv/ashlar/vmm/thread"
)

// checkAffinity checks where the vCPUs of a Spec are to run.
func checkAffinity(s *protocol.Spec) *protocol.Error {
	seen := make([]bool, s.Most())
	for i, a := range s.Affinity {
		field := fmt.Sprintf("affinity[%d]", i)
		if len(a.CPUs) == 0 {
			return invalid(field+".cpus", "no CPU of the host: name one, or leave the vCPUs out")
		}
		for _, c := range a.CPUs {
			if c < 0 || c > protocol.MaxHostCPU {
				return invalid(field+".cpus", "there is no CPU %d: 0 to %d", c, protocol.MaxHostCPU)
			}
		}
		for _, v := range a.VCPUs {
			if v < 0 || v >= len(seen) || seen[v] {
				return invalid(field+".vcpus", "there is no vCPU %d, or it stands there twice: 0 to %d", v, len(seen)-1)
			}
			seen[v] = true
		}
	}
	return nil
}

// homes are the threads of vCPUs that run on certain CPUs only. They are made, and put
// there, before the process is in its jail, which lets nobody choose a CPU, and wait for
// their vCPU to be launched, again and again where it comes and goes.
type homes struct{ living sync.WaitGroup }

// leave ends the threads; none of their vCPUs runs any more.
func (h *homes) leave(runners []*runner) {
	for _, r := range runners {
		if r.home != nil {
			close(r.home)
		}
	}
	h.living.Wait()
}

// settle makes a thread for each vCPU that is to run on certain CPUs, in the group of
// threads that is given for them.
func (m *Machine) settle() error {
	for _, a := range m.c.Affinity {
		for _, v := range a.VCPUs {
			if err := m.homes.move(m.runners[v], m.c.VCPUGroup, a.CPUs); err != nil {
				return fmt.Errorf("vCPU %d: %w", v, err)
			}
		}
	}
	return nil
}

// move makes the thread of r. The runtime makes no thread from one that is locked: none
// inherits where it runs.
func (h *homes) move(r *runner, group *os.File, cpus []int) error {
	there, lives := make(chan error), make(chan (<-chan func()), 1)
	h.living.Go(func() {
		runtime.LockOSThread() // not undone, as in run
		err := thread.Settle(group, cpus)
		there <- err
		if err != nil {
			return
		}
		for asks := range lives {
			r.run(asks)
		}
	})
	if err := <-there; err != nil {
		return err
	}
	r.home = lives
	return nil
}
