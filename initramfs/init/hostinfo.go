package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ashlar-hv/ashlar/initramfs/console"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/process"
)

// update changes what is known about the host, and tells core by rewriting
// its file.
func (m *machine) update(change func(*layout.HostInfo)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.info)
	if err := writeHostFile(m.hostFile, m.info); err != nil && m.log != nil {
		m.log.Printf("init", "%v", err)
	}
}

// host returns what is known.
func (m *machine) host() layout.HostInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

// services returns core and control; nil for one that has not been started.
func (m *machine) services() (core, control *process.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.core, m.control
}

// keep notes a service that has been started. The way down, which can begin at
// any time, looks for it.
func (m *machine) keep(where **process.Service, s *process.Service) {
	m.mu.Lock()
	defer m.mu.Unlock()
	*where = s
}

// writeHostFile replaces the file in one step: core may be reading it.
func writeHostFile(file string, info layout.HostInfo) error {
	b, err := json.MarshalIndent(info, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		return fmt.Errorf("write host file: %w", err)
	}
	return nil
}

// summary tells the person in front of the machine what came of the boot.
func (m *machine) summary() {
	info := m.host()
	lines := []string{"", "Ashlar " + info.Version + " on " + info.Hostname}
	for _, a := range info.Addresses {
		lines = append(lines, "  address      "+a+" on "+info.Interface)
	}
	lines = append(lines,
		"  API          "+endpoint(info),
		"  fingerprint  "+m.identity.fingerprint)
	if info.DataDevice != "" {
		lines = append(lines, "  data         "+info.DataDevice)
	}
	for _, p := range info.Problems {
		lines = append(lines, "  problem      "+p)
	}
	m.log.Screen(append(lines, "")...)
	if m.apiAnswers {
		m.log.Screen(fmt.Sprintf("ASHLAR READY %s in %.2f s", endpoint(info), m.readyAfter.Seconds()))
	} else {
		m.log.Printf("init", "the boot ended after %.2f s without an API", console.Uptime().Seconds())
	}
}

// endpoint is where the API is, as a client would be told.
func endpoint(info layout.HostInfo) string {
	address := "(no address)"
	if len(info.Addresses) > 0 {
		address, _, _ = strings.Cut(info.Addresses[0], "/")
	}
	return net.JoinHostPort(address, strconv.Itoa(info.APIPort))
}
