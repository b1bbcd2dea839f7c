package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// code is the code of what core refuses, "" for another error.
func code(err error) hostcall.Code {
	var e *hostcall.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestCheckCounters(t *testing.T) {
	many := &protocol.Counters{Devices: map[string]uint64{}}
	for i := range maxCounters + 1 {
		many.Devices[fmt.Sprintf("disk%d.reads", i)] = 1
	}
	for name, c := range map[string]*protocol.Counters{
		"none": nil, "many": many,
		"escape":     {Devices: map[string]uint64{"\x1b[2J": 1}},
		"long":       {Devices: map[string]uint64{strings.Repeat("a", maxCounterName+1): 1}},
		"no name":    {VCPUs: map[string][]uint64{"": {1}}},
		"capitals":   {VCPUs: map[string][]uint64{"Exits": {1}}},
		"processors": {VCPUs: map[string][]uint64{"exits": make([]uint64, maxVCPUs+1)}},
	} {
		if err := checkCounters(c); code(err) != hostcall.Internal {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	good := &protocol.Counters{Devices: map[string]uint64{"disk0.read_bytes": 1}, VCPUs: map[string][]uint64{"exits": make([]uint64, maxVCPUs)}}
	if err := checkCounters(good); err != nil {
		t.Error(err)
	}
	if err := checkCounters(&protocol.Counters{}); err != nil { // of a guest that has just ended
		t.Error(err)
	}
}

func TestCheckHistograms(t *testing.T) {
	many := protocol.Histograms{}
	for i := range maxHistograms + 1 {
		many[fmt.Sprintf("disk%d.read", i)] = []uint64{1}
	}
	for name, h := range map[string]protocol.Histograms{
		"many":   many,
		"escape": {"\x1b[2J": {1}},
		"long":   {"disk0.read": make([]uint64, protocol.HistogramBuckets+1)},
	} {
		if err := checkHistograms(h); code(err) != hostcall.Internal {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
	for _, good := range []protocol.Histograms{nil, {"disk15.flush": make([]uint64, protocol.HistogramBuckets), "disk0.read": {}}} {
		if err := checkHistograms(good); err != nil {
			t.Error(err)
		}
	}
}

// FuzzCounters checks what a VMM in its guest's hands may tell.
func FuzzCounters(f *testing.F) {
	f.Add([]byte(`{"devices":{"disk0.reads":7},"vcpus":{"exits":[1,2]}}`))
	f.Add([]byte(`{"devices":{"\u001b[2J":7},"vcpus":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c *protocol.Counters
		if json.Unmarshal(b, &c) != nil {
			return
		}
		err := checkCounters(c)
		if err != nil {
			if len(err.Error()) > maxMessage || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("message %q", err)
			}
			return
		}
		for name := range c.Devices {
			if !counterName(name) {
				t.Errorf("%q was let through", name)
			}
		}
	})
}
