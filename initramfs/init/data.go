package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/disk"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/step"
)

// Times of the data disk.
const (
	// diskPatience is how long a disk may take to appear.
	diskPatience = 10 * time.Second
	// quiet is how long no disk may have appeared before one is formatted: it
	// could be that ours comes last.
	quiet = 2 * time.Second
)

// stageDir is where the data disk is mounted until the step is known to have
// ended in time.
const stageDir = layout.RunDir + "/data"

const inMemory = "guests and images are kept in memory and are lost when the host goes off"

// dataDisk finds, formats if need be, and mounts the data disk. Whatever
// happens, there is something at layout.DataDir after it.
func (m *machine) dataDisk(ctx context.Context) (step.Outcome, error) {
	if err := memoryData(); err != nil {
		return step.Outcome{}, err
	}
	if len(m.doc.Disks) == 0 {
		return step.Outcome{Message: "in memory", Record: func() {
			m.problem("No data disk is configured: %s.", inMemory)
		}}, nil
	}
	choice, problems := m.chooseDisk(ctx)
	tell := func() {
		for _, p := range problems {
			m.problem("%s", p)
		}
	}
	if choice == nil {
		return step.Outcome{Record: tell}, errors.New("no disk can be used: " + inMemory)
	}
	if err := m.mountChoice(choice); err != nil {
		return step.Outcome{Record: tell}, fmt.Errorf("%w; %s", err, inMemory)
	}
	return step.Outcome{Message: choice.Disk.String(), Record: func() {
		if err := takeData(); err != nil {
			m.problem("The data disk cannot be used: %v; %s.", err, inMemory)
			return
		}
		m.update(func(i *layout.HostInfo) { i.DataDevice = choice.Disk.Node })
	}}, nil
}

// memoryData puts a tmpfs at layout.DataDir.
func memoryData() error {
	if err := os.MkdirAll(layout.DataDir, 0o755); err != nil {
		return fmt.Errorf("keep data in memory: %w", err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("tmpfs", layout.DataDir, "tmpfs", flags, "mode=0755,size=50%"); err != nil {
		return fmt.Errorf("keep data in memory: %w", err)
	}
	return makeFolders(layout.DataDir)
}

// takeData moves the staged file system to its place, over the one in memory,
// and takes it away again if it cannot hold what belongs there.
func takeData() error {
	if err := unix.Mount(stageDir, layout.DataDir, "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to %s: %w", stageDir, layout.DataDir, err)
	}
	if err := makeFolders(layout.DataDir); err != nil {
		// What is in memory lies below, and is whole.
		return errors.Join(err, unix.Unmount(layout.DataDir, unix.MNT_DETACH))
	}
	return nil
}

// makeFolders makes those of layout. Control may enter its own, and no others.
func makeFolders(root string) error {
	for _, f := range []struct {
		path string
		mode os.FileMode
		uid  int
	}{
		{root, 0o755, 0},
		{layout.ControlDir, 0o700, layout.ControlUID},
		{layout.ImageDir, 0o700, 0},
		{layout.GuestDir, 0o700, 0},
	} {
		if err := errors.Join(os.MkdirAll(f.path, f.mode), os.Chown(f.path, f.uid, f.uid), os.Chmod(f.path, f.mode)); err != nil {
			return fmt.Errorf("make folders for data: %w", err)
		}
	}
	return nil
}

// chooseDisk waits for a disk that can be used, and longer where the one found
// would be formatted or is not what was wished for first.
func (m *machine) chooseDisk(ctx context.Context) (choice *disk.Choice, problems []string) {
	waiting, cancel := context.WithTimeout(ctx, diskPatience)
	defer cancel()
	var seen []string
	var changed time.Time
	err := m.hub.Wait(waiting, "block", func() bool {
		disks, err := disk.List("/sys")
		if err != nil {
			problems = []string{fmt.Sprintf("The disks cannot be listed: %v.", err)}
			return false
		}
		names := make([]string, len(disks))
		for i, d := range disks {
			names[i] = d.Name
		}
		if !slices.Equal(names, seen) {
			seen, changed = names, time.Now()
		} else if choice == nil || time.Since(changed) < quiet {
			return false // nothing new, and not to be formatted yet
		}
		choice, problems = disk.Choose(disks, m.wishes(), disk.InspectNode)
		good := choice != nil && choice.Action == disk.Mount && len(problems) == 0
		return good || choice != nil && time.Since(changed) >= quiet
	})
	if err != nil && choice != nil && choice.Action == disk.Format {
		return nil, append(problems, "Disks kept appearing and disappearing, so none was formatted.")
	}
	return choice, problems
}

func (m *machine) wishes() []disk.Wish {
	var list []disk.Wish
	for _, d := range m.doc.Disks {
		list = append(list, disk.Wish{Serial: d.Serial, Path: d.Path, Model: d.Model, Any: d.Any, Erase: d.Erase})
	}
	return list
}

func (m *machine) mountChoice(c *disk.Choice) error {
	if c.Action == disk.Format {
		what := "it is blank"
		if c.Erases != "" {
			what = "it held " + c.Erases + ", which the configuration says to erase"
		}
		m.log.Printf("data", "formatting %v: %s", c.Disk, what)
	}
	if err := c.Prepare(); err != nil {
		return err
	}
	if err := os.MkdirAll(stageDir, 0o700); err != nil {
		return fmt.Errorf("mount the data disk: %w", err)
	}
	return disk.MountData(c.Disk.Node, stageDir)
}
