package arch

import (
	"encoding/binary"

	"github.com/ashlar-hv/ashlar/vmm/kvm"
)

// TakesNMI says whether the local APIC with registers l would pass a signal at
// its LINT1 pin on as an NMI (Intel SDM volume 3, section 12.5.1): whether the
// pin is set to deliver NMIs and is not masked. A PC's NMI button is wired to
// the LINT1 pins of all processors; Linux unmasks that of the first.
func TakesNMI(l *kvm.LAPICState) bool {
	const (
		lint1        = 0x360
		deliveryMode = 7 << 8
		modeNMI      = 4 << 8
		masked       = 1 << 16
	)
	v := binary.LittleEndian.Uint32(l.Regs[lint1:])
	return v&(deliveryMode|masked) == modeNMI
}
