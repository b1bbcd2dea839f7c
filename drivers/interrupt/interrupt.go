// Package interrupt keeps the host's interrupts away from CPUs that are somebody's alone,
// and puts them where they were when that is over (the kernel's Documentation/core-api/irq/
// irq-affinity.rst).
//
// Interrupts that the kernel spreads over CPUs by itself, such as those of NVMe queues,
// cannot be moved: they come on CPUs that use the device.
package interrupt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/ashlar-hv/ashlar/drivers/topology"
)

// A Steering is where interrupts go. What it has moved is written down before it is: a
// program that is started again goes on where it was.
type Steering struct {
	dir, notes string

	mu    sync.Mutex
	moved map[int][]int // where interrupts were before, by their numbers
	noted []byte        // what the file says of that
}

// New returns the Steering of the interrupts in dir (/proc/irq), with what notes, a file, says
// of earlier runs. Without such a file nothing has been moved yet.
func New(dir, notes string) (*Steering, error) {
	s := &Steering{dir: dir, notes: notes, moved: make(map[int][]int)}
	b, err := os.ReadFile(notes)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.moved)
	}
	if err != nil {
		return nil, fmt.Errorf("read which interrupts were moved: %w", err)
	}
	return s, nil
}

// A Device is a passed-through PCI device and the CPUs that its interrupts are to go to.
type Device struct {
	Address string // 0000:01:10.0
	CPUs    []int
}

// Keep has interrupts go to the CPUs that they went to before Keep was called first, of
// online CPUs, less those in away; one that has none of them left goes to any other. Those
// of devices, which VFIO handles, go where these say. It returns how many cannot be moved.
func (s *Steering) Keep(online, away []int, devices []Device) (stuck int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return 0, fmt.Errorf("steer interrupts: %w", err)
	}
	plan, restored := make(map[int][]int), make(map[int]bool)
	there := make(map[int]bool)
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		now, err := s.read(number)
		if err != nil {
			continue // it has gone
		}
		there[number] = true
		before, known := s.moved[number]
		if !known {
			before = now
		}
		want := without(before, away)
		if cpus := s.device(number, devices); len(cpus) > 0 {
			want = cpus
		}
		if len(want) == 0 {
			want = without(online, away)
		}
		if !slices.Equal(want, now) && len(want) > 0 {
			plan[number], s.moved[number] = want, before
		}
		restored[number] = slices.Equal(want, before)
	}
	if err := s.note(); err != nil {
		return 0, err
	}
	for number, want := range plan {
		if err := s.write(number, want); err != nil {
			stuck++
			restored[number] = true // it never was elsewhere
		}
	}
	maps.DeleteFunc(s.moved, func(n int, _ []int) bool { return restored[n] || !there[n] })
	return stuck, errors.Join(s.future(without(online, away)), s.note())
}

// device are the CPUs for an interrupt of one of devices; none for another one.
func (s *Steering) device(number int, devices []Device) []int {
	if len(devices) == 0 {
		return nil
	}
	// A folder is named by who handles the interrupt: vfio-msix[0](0000:01:10.0).
	entries, _ := os.ReadDir(s.path(number))
	for _, e := range entries {
		for _, d := range devices {
			if e.IsDir() && strings.HasPrefix(e.Name(), "vfio") && strings.Contains(e.Name(), "("+d.Address+")") {
				return d.CPUs
			}
		}
	}
	return nil
}

func (s *Steering) path(number int, name ...string) string {
	return filepath.Join(append([]string{s.dir, strconv.Itoa(number)}, name...)...)
}

func (s *Steering) read(number int) ([]int, error) {
	b, err := os.ReadFile(s.path(number, "smp_affinity_list"))
	if err != nil {
		return nil, err
	}
	return topology.ParseList(string(b))
}

func (s *Steering) write(number int, cpus []int) error {
	return os.WriteFile(s.path(number, "smp_affinity_list"), []byte(topology.FormatList(cpus)), 0)
}

// future has interrupts that come to be go to cpus.
func (s *Steering) future(cpus []int) error {
	if len(cpus) == 0 {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.dir, "default_smp_affinity"), []byte(mask(cpus)), 0); err != nil {
		return fmt.Errorf("steer interrupts: %w", err)
	}
	return nil
}

// mask writes CPUs as the kernel reads a mask: words of 32 bits, the highest first.
func mask(cpus []int) string {
	words := make([]uint32, slices.Max(cpus)/32+1)
	for _, c := range cpus {
		words[len(words)-1-c/32] |= 1 << (c % 32)
	}
	var out []string
	for _, w := range words {
		out = append(out, fmt.Sprintf("%08x", w))
	}
	return strings.Join(out, ",")
}

func without(a, b []int) []int {
	return slices.DeleteFunc(slices.Clone(a), func(n int) bool { return slices.Contains(b, n) })
}

// note writes down what is moved.
func (s *Steering) note() error {
	b, err := json.Marshal(s.moved)
	if bytes.Equal(b, s.noted) {
		return nil
	}
	if err == nil {
		err = os.WriteFile(s.notes+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(s.notes+".new", s.notes)
	}
	if err != nil {
		return fmt.Errorf("note which interrupts are moved: %w", err)
	}
	s.noted = b
	return nil
}
