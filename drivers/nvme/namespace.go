package nvme

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// maxList is how many entries a list of Identify has.
const maxList = identifySize / 4

// Namespaces are the numbers of those that there are in the NVM subsystem, attached or not, in
// ascending order.
func (c *Controller) Namespaces() ([]int, error) {
	p, err := c.identify(cnsAllocated, 0, 0)
	if err != nil {
		return nil, err
	}
	return namespacesOf(p), nil
}

func namespacesOf(p page) []int {
	var out []int
	for i := range maxList {
		n := p.u32(4 * i)
		if n == 0 {
			break
		}
		out = append(out, n)
	}
	return out
}

// Attached are the numbers of the controllers that a namespace is attached to.
func (c *Controller) Attached(namespace int) ([]int, error) {
	p, err := c.identify(cnsAttached, 0, uint32(namespace))
	if err != nil {
		return nil, err
	}
	return controllersOf(p), nil
}

func controllersOf(p page) []int {
	var out []int
	for i := range min(p.u16(0), identifySize/2-1) {
		out = append(out, p.u16(2+2*i))
	}
	return out
}

// managesNamespaces reports whether namespaces can be attached and detached.
func (c *Controller) managesNamespaces() (bool, error) {
	p, err := c.identify(cnsController, 0, 0)
	if err != nil {
		return false, err
	}
	return p.u16(regOptional)&canNamespace != 0, nil
}

// SetAttached attaches to the controller of a virtual function, from 0 on, these namespaces,
// and takes away all others. The primary controller, and the host with it, loses them.
func (c *Controller) SetAttached(function int, namespaces []int) error {
	secondaries, err := c.Secondaries()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(secondaries, func(s Secondary) bool { return s.Function == function+1 })
	if i < 0 {
		return fmt.Errorf("attach namespaces to NVMe function %d: no controller is that of this function", function)
	}
	primary, err := c.id()
	if err != nil {
		return err
	}
	all, err := c.Namespaces()
	if err != nil {
		return err
	}
	for _, n := range namespaces {
		if !slices.Contains(all, n) {
			return &NoNamespace{n, all}
		}
	}
	for _, n := range all {
		on, err := c.Attached(n)
		if err != nil {
			return err
		}
		is, want := slices.Contains(on, secondaries[i].ID), slices.Contains(namespaces, n)
		if want && slices.Contains(on, primary) {
			if err := c.attach(n, primary, false); err != nil {
				return err
			}
		}
		if is != want {
			if err := c.attach(n, secondaries[i].ID, want); err != nil {
				return err
			}
		}
		if on, err = c.Attached(n); err != nil {
			return err
		}
		if slices.Contains(on, secondaries[i].ID) != want {
			return fmt.Errorf("attach namespaces to NVMe function %d: the controller has not done so with namespace %d", function, n)
		}
	}
	return nil
}

// Reclaim gives namespaces that secondary controllers alone have back to the primary one,
// while these have virtual functions.
func (c *Controller) Reclaim() error {
	manages, err := c.managesNamespaces()
	if err != nil || !manages {
		return err
	}
	secondaries, err := c.Secondaries()
	if err != nil {
		return err
	}
	primary, err := c.id()
	if err != nil {
		return err
	}
	all, err := c.Namespaces()
	if err != nil {
		return err
	}
	for _, n := range all {
		on, err := c.Attached(n)
		if err != nil {
			return err
		}
		if slices.Contains(on, primary) {
			continue
		}
		had := false
		for _, s := range secondaries {
			if slices.Contains(on, s.ID) {
				if err := c.attach(n, s.ID, false); err != nil {
					return err
				}
				had = true
			}
		}
		if had {
			if err := c.attach(n, primary, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// id is the number of the controller.
func (c *Controller) id() (int, error) {
	p, err := c.identify(cnsController, 0, 0)
	if err != nil {
		return 0, err
	}
	return p.u16(regID), nil
}

// A NoNamespace error says that there is no namespace of that number.
type NoNamespace struct {
	Namespace int
	Have      []int
}

// Error says which there are.
func (e *NoNamespace) Error() string {
	return fmt.Sprintf("the NVMe controller has no namespace %d: it has %v", e.Namespace, e.Have)
}

// attach is Namespace Attachment: with on it attaches, else it detaches.
func (c *Controller) attach(namespace, controller int, on bool) error {
	list := make([]byte, identifySize) // a Controller List (figure 137)
	binary.LittleEndian.PutUint16(list, 1)
	binary.LittleEndian.PutUint16(list[2:], uint16(controller))
	sel := uint32(1)
	if on {
		sel = 0
	}
	_, err := c.do(fmt.Sprintf("namespace attachment (%t) of namespace %d, controller %d", on, namespace, controller),
		command{opcode: opAttachment, nsid: uint32(namespace), cdw10: sel}, list)
	if on && isStatus(err, AlreadyAttached) || !on && isStatus(err, NotAttached) {
		return nil
	}
	return err
}
