package machine

import (
	"encoding/binary"
	"io"
	"log"
	"os"
	"slices"
	"testing"

	"github.com/ashlar-hv/ashlar/vmm/arch"
	"github.com/ashlar-hv/ashlar/vmm/internal/tinykernel"
	"github.com/ashlar-hv/ashlar/vmm/kvm"
	"github.com/ashlar-hv/ashlar/vmm/pci"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// Places that an access goes to, and its directions.
const (
	toPort = iota
	toECAM
	toBARs
	toHole // below 4 GiB
	places

	write      = 1 << 2
	accessSize = 13
)

// access encodes one access of 1<<order bytes for FuzzAccesses.
func access(kind, order byte, at uint32, value uint64) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{kind | order<<3}, at)
	return binary.LittleEndian.AppendUint64(b, value)
}

// do makes one access to m, as the run loop does for an exit.
func do(m *Machine, b []byte) {
	kind, at := b[0], binary.LittleEndian.Uint32(b[1:])
	data := b[5 : 5+1<<(kind>>3&3)]
	var gpa uint64
	switch kind % places {
	case toPort:
		if data = data[:min(len(data), 4)]; kind&write != 0 {
			m.ports.Out(uint16(at), data)
		} else {
			m.ports.In(uint16(at), data)
		}
		return
	case toECAM:
		gpa = arch.ECAMBase + uint64(at)%(2*pci.ECAMSize) // with the bus behind slot 1
	case toBARs:
		gpa = m.mmio64.Base + uint64(at)
	case toHole:
		gpa = arch.MMIO32Base + uint64(at)%(1<<30)
	}
	m.access(kvm.MMIO{Write: kind&write != 0, GPA: gpa, Data: data})
}

// FuzzAccesses lets a guest touch ports, configuration space and BARs of a whole
// machine at will. It may power off or reset, and nothing worse.
func FuzzAccesses(f *testing.F) {
	log.SetOutput(io.Discard)
	const disk = 1 << 15 // device 1 in ECAM
	f.Add(append(access(write, 1, 0x604, 5<<10|1<<13), access(write, 0, 0xcf9, 6)...))
	f.Add(append(access(toECAM|write, 1, disk|4, 6), access(toBARs|write, 0, 0x14, 15)...))
	f.Add(append(access(toECAM|write, 2, disk|0x10, 0xc0000000), access(toHole, 3, 0, 0)...))
	f.Add(append(access(write, 2, 0xcf8, 1<<31|1<<11|0x98), access(write, 2, 0xcfc, 0xff)...))
	f.Add(append(access(write, 0, 0x70, 0x32), access(write, 0, 0x71, 0xff)...))
	f.Add(append(access(toECAM|write, 0, 5<<15|0x68, 2), access(write, 0, 0x505, 3)...))
	f.Add(append(access(write, 2, arch.PortCPUs, 1), access(write, 0, arch.PortCPUs+4, 8)...))
	// A disk in a slot is switched on, found and switched off.
	f.Add(slices.Concat(access(toECAM|write, 1, slotControl, switchOn), access(toECAM, 2, card1, 0),
		access(toECAM|write, 1, slot1|4, 6), access(toECAM|write, 2, card1|0x10, 0xc0000000), access(toECAM|write, 1, card1|4, 6),
		access(toHole|write, 0, 0x14, 15), access(toECAM|write, 1, slotControl, turnOff), access(toHole, 0, 0x14, 15)))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSpec(t, tinykernel.Code{}.Idle())
		s.HotplugSlots = 1
		image, err := os.CreateTemp(t.TempDir(), "disk")
		if err == nil {
			err = image.Truncate(1 << 20)
		}
		s.VCPUs, s.MaxVCPUs = 2, 4
		s.Disks = []protocol.Disk{{File: s.add(image, err)}}
		s.Board = &protocol.Board{Watchdog: protocol.ResetAction, OnPanic: protocol.ResetAction}
		g := s.loaded(t)
		start(t, g)
		attachDisk(t, g, 1)
		for ; len(b) >= accessSize; b = b[accessSize:] {
			do(g.Machine, b[:accessSize])
		}
		switch r := g.Result(); r.Reason {
		case "", protocol.PoweredOff, protocol.Reset, protocol.Panicked, protocol.WatchdogExpired:
		default:
			t.Errorf("result = %+v", r)
		}
	})
}
