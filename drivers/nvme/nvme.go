// Package nvme gives virtual functions of NVMe controllers what they need to work: queues,
// interrupts and namespaces. A controller with SR-IOV is a primary one, its functions have
// secondary ones, which are offline until the primary has been told to bring them online (NVM Express Base
// Specification 2.0, section 8.26). Commands go through the host's driver (linux/nvme_ioctl.h).
package nvme

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Admin commands (section 5).
const (
	opIdentify   = 0x06
	opAttachment = 0x15 // Namespace Attachment (5.20)
	opVirtualize = 0x1c // Virtualization Management (5.28)
)

// Data structures of Identify (5.17).
const (
	cnsController  = 0x01
	cnsAllocated   = 0x10 // namespaces that there are
	cnsAttached    = 0x12 // controllers that a namespace is attached to
	cnsPrimary     = 0x14
	cnsSecondaries = 0x15
	identifySize   = 4096
)

// timeout bounds a command.
const timeout = 30 * time.Second

// A Status is what a controller says of a command that it has not carried out (section
// 3.3.3.2.1): type and code, without the bit Do Not Retry.
type Status uint16

// Status values of what is done here.
const (
	InvalidOpcode    Status = 0x001
	InvalidField     Status = 0x002
	InvalidCntlID    Status = 0x11f // Invalid Controller Identifier
	InvalidSecondary Status = 0x120 // Invalid Secondary Controller State
	InvalidNumber    Status = 0x121 // Invalid Number of Controller Resources
	InvalidResource  Status = 0x122 // Invalid Resource Identifier
	AlreadyAttached  Status = 0x118 // Namespace Already Attached
	NotAttached      Status = 0x11a
)

// Error names the status.
func (s Status) Error() string {
	for code, text := range map[Status]string{
		InvalidOpcode: "the controller does not know the command", InvalidField: "invalid field",
		InvalidCntlID: "invalid controller", InvalidSecondary: "invalid state of the secondary controller",
		InvalidNumber: "invalid number of queues or interrupts", InvalidResource: "invalid resource",
		AlreadyAttached: "the namespace is attached already", NotAttached: "the namespace is not attached",
	} {
		if s.is(code) {
			return fmt.Sprintf("%s (status %#x)", text, uint16(s))
		}
	}
	return fmt.Sprintf("status %#x", uint16(s))
}

func (s Status) is(code Status) bool { return s&0x7ff == code }

func isStatus(err error, code Status) bool {
	var s Status
	return errors.As(err, &s) && s.is(code)
}

// A Controller is one that the host's driver has.
type Controller struct{ f *os.File }

// Open opens the controller at a PCI address.
func Open(address string) (*Controller, error) {
	name, err := find("/sys", address)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join("/dev", name), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open NVMe controller: %w", err)
	}
	return &Controller{f}, nil
}

// find finds the name of the controller at an address: "nvme0".
func find(root, address string) (string, error) {
	entries, err := os.ReadDir(filepath.Join(root, "bus/pci/devices", address, "nvme"))
	if err != nil {
		return "", fmt.Errorf("find NVMe controller: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "nvme") {
			return e.Name(), nil
		}
	}
	return "", fmt.Errorf("find NVMe controller: the host's driver has none at %s", address)
}

// Close closes it.
func (c *Controller) Close() error { return c.f.Close() }

// Reset resets the controller: what is under way is done after it.
func (c *Controller) Reset() error { return reset(c.f) }

// do carries out a command.
func (c *Controller) do(what string, cmd command, data []byte) (uint32, error) {
	cmd.timeoutMsec = uint32(timeout.Milliseconds())
	if err := admin(c.f, &cmd, data); err != nil {
		return 0, fmt.Errorf("NVMe controller %s: %s: %w", filepath.Base(c.f.Name()), what, err)
	}
	return cmd.result, nil
}

// identify reads a data structure; controller and namespace are 0 where it has none to do with.
func (c *Controller) identify(cns uint8, controller uint16, namespace uint32) (page, error) {
	b := make(page, identifySize)
	_, err := c.do(fmt.Sprintf("identify %#x", cns), command{opcode: opIdentify, nsid: namespace, cdw10: uint32(cns) | uint32(controller)<<16}, b)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// A page is a data structure of Identify.
type page []byte

func (p page) u16(at int) int { return int(binary.LittleEndian.Uint16(p[at:])) }
func (p page) u32(at int) int { return int(binary.LittleEndian.Uint32(p[at:])) }
