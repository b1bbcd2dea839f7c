// Package pci is a PCI Express root complex for a guest: a host bridge,
// configuration space through ECAM, memory BARs in the windows that the
// machine gives, MSI-X, and root ports with hot-plug slots. It follows the PCI Express Base Specification
// 5.0 (sections 6.7, 7.2, 7.5, 7.7) and PCI Local Bus 3.0 (section 6).
//
// The machine makes a Bus, adds Functions, calls Assign once, and hands it the
// guest's accesses: Read and Write for ECAM, MMIORead and MMIOWrite for
// everything else. Cards come and go in the slots of RootPorts at any time. What touches the hypervisor stands behind two interfaces,
// MSIRouter and Notifier.
package pci
