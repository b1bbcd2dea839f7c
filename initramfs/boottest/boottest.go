// Package boottest boots the initramfs with the host's kernel in QEMU and looks
// at what the console says. It holds tests only.
package boottest
