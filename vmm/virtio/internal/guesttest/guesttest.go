// Package guesttest has no code but its test: a Linux guest uses every virtio
// device of a VMM process in its jail, on a real /dev/kvm, with real disks and taps. It needs root and a
// hypervisor that runs Linux, so it is behind the build tag roottest: see
// qemu-tests/roottest.
package guesttest
