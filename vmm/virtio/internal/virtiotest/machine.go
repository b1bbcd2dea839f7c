// Package virtiotest drives virtio devices in unit tests as a guest's driver
// does: through configuration space, BAR and rings in plain memory, with
// nothing in between but eventfds.
package virtiotest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/ashlar-hv/ashlar/vmm/memory"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/pci/pcitest"
	"github.com/ashlar-hv/ashlar/vmm/virtio"
	"github.com/ashlar-hv/ashlar/vmm/virtio/transport"
)

// Patience is how long a test waits for what must come.
const Patience = 20 * time.Second

// MemorySize is the guest's memory in bytes.
const MemorySize = 4 << 20

// A Machine is memory, a bus and the hypervisor's stand-in.
type Machine struct {
	T        testing.TB
	Mem      *memory.Memory
	Bus      *pci.Bus
	Router   pcitest.Router
	Notifier pcitest.Notifier
	next     uint64 // free guest memory
	mark     uint64 // where Reuse goes back to
}

// NewMachine makes a machine for the time of the test.
func NewMachine(t testing.TB) *Machine {
	t.Helper()
	return &Machine{
		T:    t,
		Mem:  NewMemory(t, MemorySize),
		Bus:  pci.NewBus(pci.Window{Base: 0xe0000000, Size: 1 << 20}, pci.Window{Base: 1 << 36, Size: 1 << 20}),
		next: 0x1000,
	}
}

// NewMemory makes guest memory for the time of the test.
func NewMemory(t testing.TB, size uint64) *memory.Memory {
	t.Helper()
	f, err := memory.Create("virtiotest", size)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := memory.Map(f, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// Alloc returns n bytes of guest memory at a multiple of 16.
func (m *Machine) Alloc(n uint64) uint64 {
	m.T.Helper()
	gpa := m.next
	m.next = (m.next + n + 15) &^ 15
	if m.next > m.Mem.Size() {
		m.T.Fatalf("test uses over %d bytes of guest memory", m.Mem.Size())
	}
	return gpa
}

// Borrow returns a function that frees what is allocated until it is called.
func (m *Machine) Borrow() (free func()) {
	at := m.next
	return func() { m.next = at }
}

// Put copies b into newly allocated guest memory.
func (m *Machine) Put(b []byte) Buf {
	m.T.Helper()
	buf := Buf{GPA: m.Alloc(uint64(len(b))), Len: uint32(len(b))}
	m.Must(m.Mem.WriteAt(buf.GPA, b))
	return buf
}

// Room allocates n bytes, filled with 0xaa.
func (m *Machine) Room(n int) Buf {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xaa
	}
	return m.Put(b)
}

// Bytes copies what is in b.
func (m *Machine) Bytes(b Buf) []byte {
	m.T.Helper()
	p := make([]byte, b.Len)
	m.Must(m.Mem.ReadAt(b.GPA, p))
	return p
}

// Must fails the test on an error.
func (m *Machine) Must(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}

// Plug puts d on the bus as device 1 and returns a driver for it that has found
// its registers. The transport is closed at the end of the test.
func (m *Machine) Plug(d virtio.Device) *Driver {
	m.T.Helper()
	t, err := transport.New(d, m.Mem, &m.Router, &m.Notifier)
	m.Must(err)
	m.T.Cleanup(func() {
		if err := t.Close(); err != nil {
			m.T.Error(err)
		}
	})
	m.Must(m.Bus.Add(1, t))
	m.Must(m.Bus.Assign())
	return newDriver(m, t)
}

// little reads a little-endian number of len(b) bytes.
func little(b []byte) uint64 {
	var p [8]byte
	copy(p[:], b)
	return binary.LittleEndian.Uint64(p[:])
}

func bytesOf(v uint64, n int) []byte {
	return binary.LittleEndian.AppendUint64(nil, v)[:n]
}
