package pci

// A Lingerer is a Function whose BARs read as zeros, not as ones, after it was pulled out,
// until the guest has switched its slot off.
type Lingerer interface{ Lingers() }

// A Function is a type 0 PCI function: what stands behind one configuration
// space. The Bus calls its methods from many vCPU threads at once, except
// BARMapped, which it calls for one BAR at a time.
type Function interface {
	// Config is the function's configuration space: always the same one.
	Config() *Config
	// BARRead fills b with what the guest reads at off bytes into BAR bar.
	// off+len(b) never passes the end of the BAR.
	BARRead(bar int, off uint64, b []byte)
	// BARWrite takes what the guest wrote at off bytes into BAR bar.
	BARWrite(bar int, off uint64, b []byte)
	// BARMapped tells that BAR bar answers at gpa now, or, with mapped false,
	// that it no longer answers at gpa.
	BARMapped(bar int, gpa uint64, mapped bool)
}
