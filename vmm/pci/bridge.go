package pci

// hostBridge is the function 00:00.0: nothing but an identity. Its numbers are
// those of the PCI host bridge that virtual machines have had for long, with
// no driver of its own in any guest.
type hostBridge struct {
	cfg *Config
}

func newHostBridge() hostBridge {
	return hostBridge{cfg: NewConfig(Identity{Vendor: 0x1b36, Device: 0x0008, Class: ClassHostBridge})}
}

func (h hostBridge) Config() *Config                    { return h.cfg }
func (h hostBridge) BARRead(_ int, _ uint64, _ []byte)  {}
func (h hostBridge) BARWrite(_ int, _ uint64, _ []byte) {}
func (h hostBridge) BARMapped(_ int, _ uint64, _ bool)  {}
