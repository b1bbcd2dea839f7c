package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestNumber(t *testing.T) {
	for name, tt := range map[string]struct {
		g    hostcall.Guest
		want string // field, "" for none
		last int    // number of the last disk
	}{
		"from before there were numbers": {hostcall.Guest{Disks: make([]int64, 3), NICs: make([]hostcall.NIC, 3)}, "", 2},
		"none":                           {hostcall.Guest{}, "", 0},
		"one":                            {hostcall.Guest{Disks: make([]int64, 1), DiskNumbers: []int{0}}, "", 0},
		"numbers":                        {hostcall.Guest{Disks: make([]int64, 2), DiskNumbers: []int{15, 0}}, "", 0},
		"twice":                          {hostcall.Guest{Disks: make([]int64, 2), DiskNumbers: []int{1, 1}}, "guest.disks[1].number", 1},
		"too high":                       {hostcall.Guest{Disks: make([]int64, 1), DiskNumbers: []int{16}}, "guest.disks[0].number", 16},
		"negative":                       {hostcall.Guest{Disks: make([]int64, 1), DiskNumbers: []int{-1}}, "guest.disks[0].number", -1},
		"too few":                        {hostcall.Guest{Disks: make([]int64, 2), DiskNumbers: []int{1}}, "guest.diskNumbers", 1},
		"NIC twice":                      {hostcall.Guest{NICs: []hostcall.NIC{{Number: 2}, {Number: 2}}}, "guest.nics[1].number", 0},
		"NIC too high":                   {hostcall.Guest{NICs: []hostcall.NIC{{Number: 8}}}, "guest.nics[0].number", 0},
		"slots":                          {hostcall.Guest{HotplugSlots: 8}, "", 0},
		"too many slots":                 {hostcall.Guest{HotplugSlots: 9}, "guest.hotplugSlots", 0},
		"negative slots":                 {hostcall.Guest{HotplugSlots: -1}, "guest.hotplugSlots", 0},
	} {
		number(&tt.g)
		got := ""
		var e *hostcall.Error
		if errors.As(checkNumbers(&tt.g), &e) {
			got = e.Field
		}
		last := 0
		if n := len(tt.g.DiskNumbers); n > 0 {
			last = tt.g.DiskNumbers[n-1]
		}
		if got != tt.want || last != tt.last {
			t.Errorf("%s: field %q, last number %d; want %q, %d", name, got, last, tt.want, tt.last)
		}
	}
}

func TestCheckDevices(t *testing.T) {
	for name, tt := range map[string]struct {
		devices []protocol.PluggedDevice
		ok      bool
	}{
		"none":          {nil, true},
		"usual":         {[]protocol.PluggedDevice{{Name: "disk0"}, {Name: "nic0"}, {Name: "disk15", Slot: 4, Detaching: true}}, true},
		"twice":         {[]protocol.PluggedDevice{{Name: "disk0"}, {Name: "disk0", Slot: 1}}, false},
		"no number":     {[]protocol.PluggedDevice{{Name: "disk"}}, false},
		"other number":  {[]protocol.PluggedDevice{{Name: "disk00"}}, false},
		"too high":      {[]protocol.PluggedDevice{{Name: "disk16"}}, false},
		"something":     {[]protocol.PluggedDevice{{Name: "../../etc"}}, false},
		"no such slot":  {[]protocol.PluggedDevice{{Name: "nic1", Slot: 5}}, false},
		"negative slot": {[]protocol.PluggedDevice{{Name: "nic1", Slot: -1}}, false},
	} {
		if err := checkDevices(tt.devices, 4); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Limits of a NIC to be attached are checked here, whatever control has done.
func TestAttachNICLimits(t *testing.T) {
	n := hostcall.NIC{Number: 1, Limits: &hostcall.NICLimits{Receive: &hostcall.NetworkLimits{BytesPerSecond: 1}}}
	var e *hostcall.Error
	if err := new(Manager).AttachNIC(t.Context(), "id", n); !errors.As(err, &e) || e.Code != hostcall.InvalidArgument ||
		!strings.HasPrefix(e.Field, "guest.nics[0].limits") {
		t.Errorf("AttachNIC = %v, want a refusal of its limits", err)
	}
}
