package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/drivers/disk"
	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/step"
)

// configDir is where the configuration partition is mounted.
const configDir = layout.RunDir + "/cfg"

// readLimit is how long the stick may take to give the document: less than the
// step may, so that the step does what is done without one.
const readLimit = 8 * time.Second

const howToConfigure = "make a configuration with `ashlarctl config init` and put it on the stick with `ashlarctl image configure`"

// configuration reads the document. Without a good one the host comes up with
// defaults, and nobody can manage it.
func (m *machine) configuration(ctx context.Context) (step.Outcome, error) {
	doc, err := inTime(ctx, readLimit, m.readConfiguration)
	if err != nil {
		id, idErr := throwaway(m.doc.Hostname, time.Now())
		return step.Outcome{Record: func() {
			m.identity = id
			m.adopt(m.doc)
			m.problem("No operator's CA is configured, so the API lets nobody in: %s.", howToConfigure)
		}}, errors.Join(err, idErr)
	}
	id := identityOf(doc)
	return step.Outcome{Message: "host name " + doc.Hostname, Record: func() {
		m.identity = id
		m.adopt(doc)
		for _, w := range doc.Warnings(time.Now()) {
			m.problem("%s.", capital(w))
		}
	}}, nil
}

// inTime gives up a read that takes longer than limit, as on a stick that is
// about to fail. The read itself cannot be ended.
func inTime(ctx context.Context, limit time.Duration, read func() (*config.Document, error)) (*config.Document, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		doc *config.Document
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil { // PID 1 must not go down with it
				r = result{err: fmt.Errorf("read configuration: program error: %v", p)}
			}
			done <- r
		}()
		r.doc, r.err = read()
	}()
	select {
	case r := <-done:
		return r.doc, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("read configuration: the stick has not answered for %v: write the image to another one", limit)
	}
}

// adopt makes doc the configuration in force.
func (m *machine) adopt(doc *config.Document) {
	m.doc = doc
	if err := unix.Sethostname([]byte(doc.Hostname)); err != nil {
		m.problem("The host name %q cannot be set: %v.", doc.Hostname, err)
	}
	m.update(func(i *layout.HostInfo) {
		i.Hostname, i.APIPort = doc.Hostname, doc.API.Port
		i.CPUOvercommit, i.ReservedCPUs = doc.GuestCPUs.Overcommit, doc.GuestCPUs.Reserved
		i.Require = doc.Security.Require
		i.Networks = []layout.Network{}
		for _, n := range doc.GuestNetworks {
			i.Networks = append(i.Networks, layout.Network{Name: n.Name, Subnet: n.Subnet, MTU: n.MTU})
		}
	})
}

func (m *machine) readConfiguration() (*config.Document, error) {
	if m.configNode == "" {
		return nil, errors.New("there is no configuration partition")
	}
	if err := os.MkdirAll(configDir, 0o700); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if err := disk.MountConfig(m.configNode, configDir); err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	// The file system is not needed any more, and its stick may be pulled out.
	defer func() { _ = unix.Unmount(configDir, unix.MNT_DETACH) }()
	return readDocument(configDir)
}

func readDocument(dir string) (*config.Document, error) {
	f, err := os.Open(filepath.Join(dir, config.FileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the configuration partition has no file %s", config.FileName)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	doc, err := config.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", config.FileName, strings.ReplaceAll(err.Error(), "\n", "\n"+config.FileName+": "))
	}
	return doc, nil
}
