package sriov

import (
	"context"
	"errors"
	"fmt"

	"github.com/ashlar-hv/ashlar/drivers/nvme"
	"github.com/ashlar-hv/ashlar/drivers/pci"
	driver "github.com/ashlar-hv/ashlar/drivers/sriov"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// classNVMe is the class of NVMe controllers.
const classNVMe = 0x010802

// makeNVMe makes those of an NVMe controller: each gets its share of queues and interrupts,
// its namespaces, and is brought online.
func makeNVMe(_ context.Context, d *pci.Device, v hostcall.VFs) error {
	c, err := nvme.Open(d.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := provide(c, d, v); err != nil {
		return why(d, err)
	}
	return nil
}

func provide(c *nvme.Controller, d *pci.Device, v hostcall.VFs) error {
	virtual, err := c.Virtual()
	if err != nil {
		return err
	}
	have, err := driver.Count(sysfs, d.Address)
	if err != nil {
		return err
	}
	if have != v.Count || virtual && !online(c, v.Count) {
		if have > 0 {
			if err := c.Reclaim(); err != nil {
				return err
			}
		}
		if err := driver.Create(d.Address, 0); err != nil {
			return err
		}
		if virtual {
			if err := c.Share(v.Count); err != nil {
				return err
			}
		}
		if err := driver.Create(d.Address, v.Count); err != nil {
			return err
		}
	}
	for i := range v.Count {
		// Without the command they are online from the start.
		if virtual {
			if err := c.Online(i); err != nil {
				return err
			}
		}
		if v.Namespaces != nil {
			if err := c.SetAttached(i, v.Namespaces[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// online reports whether the first n functions have what they need.
func online(c *nvme.Controller, n int) bool {
	all, err := c.Secondaries()
	have := 0
	for _, s := range all {
		if s.Online && s.Function >= 1 && s.Function <= n {
			have++
		}
	}
	return err == nil && have == n
}

// why makes a refusal of what the controller says.
func why(d *pci.Device, err error) error {
	var few *nvme.TooFew
	var none *nvme.NoNamespace
	switch {
	case errors.As(err, &few):
		return refuse(hostcall.ResourceExhausted, "vfs.count", "The NVMe controller %s has %s for %d virtual functions, not more: ask for %d.", d.Address, few.Resource, few.Can, few.Can)
	case errors.As(err, &none):
		return refuse(hostcall.InvalidArgument, "vfs.namespaces", "The NVMe controller %s has no namespace %d: it has %v.", d.Address, none.Namespace, none.Have)
	}
	return fmt.Errorf("make virtual functions of %s: %w", d.Address, err)
}
