// Package vfio gives a guest devices of the host's: PCI functions that are bound to
// vfio-pci. It follows Documentation/driver-api/vfio.rst, Documentation/userspace-api/iommufd.rst and the user
// headers linux/vfio.h and linux/iommufd.h of Linux 6.12, and for what the guest sees the PCI Express
// Base Specification 5.0 (section 7).
//
// A Host is what a guest's devices share: the IOMMU's page tables, which have all of the guest's
// memory at its own addresses, and KVM's list of them. Open makes a Device of a descriptor, bound,
// reset and not able to do any DMA yet; New makes a pci.Function of it. The guest reaches
// memory BARs without this process, but for pages that have the MSI-X table or pending bits in
// them; configuration space is shown by the tables in header.go and capabilities.go.
//
// The kernel guards the host by itself: what it does not let through (BARs, MSI, the
// command register's effects) a process with the descriptor cannot do. What is here is
// to have the guest see a device that works as one does.
package vfio
