package kvm

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// apiVersion is KVM_API_VERSION, the same since Linux 2.6.22.
const apiVersion = 12

// A System is /dev/kvm.
type System struct {
	f        *os.File
	mmapSize int

	mu   sync.Mutex
	caps map[Capability]int // guarded by mu
}

// Open takes over f, an open /dev/kvm, once it has answered with the right
// API version and all capabilities that a machine needs. On an error f stays
// the caller's.
func Open(f *os.File) (*System, error) {
	s := &System{f: f, caps: make(map[Capability]int)}
	v, err := ioctl(f, kvmGetAPIVersion, 0)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_API_VERSION on %s: %w (is it /dev/kvm?)", f.Name(), err)
	}
	if v != apiVersion {
		return nil, fmt.Errorf("KVM has API version %d, want %d", v, apiVersion)
	}
	for _, c := range required {
		n, err := s.Check(c)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, &MissingError{c}
		}
	}
	if s.mmapSize, err = ioctl(f, kvmGetVCPUMmapSize, 0); err != nil {
		return nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	return s, nil
}

// Close closes /dev/kvm. VMs made from it go on.
func (s *System) Close() error { return s.f.Close() }

// Check is KVM_CHECK_EXTENSION: 0 for a capability that is missing, else 1 or
// a number that the capability defines. The answer is cached.
func (s *System) Check(c Capability) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.caps[c]; ok {
		return n, nil
	}
	n, err := ioctl(s.f, kvmCheckExtension, uintptr(c))
	if err != nil {
		return 0, fmt.Errorf("KVM_CHECK_EXTENSION of %v: %w", c, err)
	}
	s.caps[c] = n
	return n, nil
}

// Has says whether the capability is there.
func (s *System) Has(c Capability) bool {
	n, err := s.Check(c)
	return err == nil && n > 0
}

// SupportedCPUID is what KVM can show to guests on this host
// (KVM_GET_SUPPORTED_CPUID).
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	t := cpuidTable{cpuidHeader: cpuidHeader{nent: maxCPUID}}
	if err := getSupportedCPUID(s.f, &t); err != nil {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	if t.nent > maxCPUID {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %d entries, at most %d expected", t.nent, maxCPUID)
	}
	return append([]CPUIDEntry(nil), t.entries[:t.nent]...), nil
}

// CreateVM makes an empty VM.
func (s *System) CreateVM() (*VM, error) {
	for {
		fd, err := ioctl(s.f, kvmCreateVM, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("KVM_CREATE_VM: %w", err)
		}
		return &VM{sys: s, f: os.NewFile(uintptr(fd), "kvm-vm")}, nil
	}
}
