package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ashlar-hv/ashlar/drivers/disk"
	"github.com/ashlar-hv/ashlar/drivers/nic"
	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/step"
	"github.com/ashlar-hv/ashlar/initramfs/uevent"
)

// stickPatience is how long a boot stick may take to appear: USB hubs and slow
// firmware of sticks included.
const stickPatience = 12 * time.Second

func (m *machine) watchDevices() {
	conn, err := uevent.Listen()
	if err == nil {
		err = m.hub.Run(conn)
	}
	// Whoever waits for devices also looks by itself.
	m.log.Printf("devices", "%v", err)
}

// devices waits for the configuration partition. Meanwhile the network
// interfaces negotiate their links.
func (m *machine) devices(ctx context.Context) (step.Outcome, error) {
	if err := nic.Up("lo"); err != nil {
		m.log.Printf("devices", "%v", err)
	}
	list, err := nic.List("/sys")
	for _, i := range list {
		if err := nic.Up(i.Name); err != nil {
			m.log.Printf("devices", "%v", err)
		}
	}
	if err != nil {
		m.log.Printf("devices", "%v", err)
	}
	if m.options.NoConfig {
		return step.Outcome{Message: "not waiting for a configuration partition"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, stickPatience)
	defer cancel()
	var p disk.Partition
	var d disk.Disk
	err = m.hub.Wait(ctx, "block", func() bool {
		disks, err := disk.List("/sys")
		if err != nil {
			return false
		}
		var ok bool
		p, d, ok = disk.FindPartition(disks, config.PartitionLabel)
		return ok
	})
	if err != nil {
		return step.Outcome{}, fmt.Errorf("no partition labelled %s within %v: the host starts with its defaults; put the stick back in and restart", config.PartitionLabel, stickPatience)
	}
	return step.Outcome{
		Message: "configuration partition " + p.Node + " on " + d.String(),
		Record:  func() { m.configNode = p.Node },
	}, nil
}
