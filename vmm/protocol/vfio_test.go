package protocol

import (
	"strings"
	"testing"
)

func TestVFIOCheck(t *testing.T) {
	f := func(n File) *File { return &n }
	const a = "0000:3b:00.1"
	for _, tt := range []struct {
		name  string
		v     *VFIO
		slots int
		field string
		wrong string
	}{
		{name: "none"},
		{name: "later", v: &VFIO{}},
		{name: "file", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: a, File: f(1)}}}},
		{name: "file without iommufd", v: &VFIO{Devices: []VFIODevice{{Address: a, File: f(1)}}}, field: "devices[0].file", wrong: "iommufd"},
		{name: "nothing", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: a}}}, field: "devices[0].group", wrong: "container"},
		{name: "group", v: &VFIO{Container: f(0), Devices: []VFIODevice{{Address: a, GroupID: 7, Group: f(1)}, {Address: a, GroupID: 7}}}},
		{name: "group twice", v: &VFIO{Container: f(0), Devices: []VFIODevice{{Address: a, GroupID: 7, Group: f(1)}, {Address: a, GroupID: 7, Group: f(2)}}},
			field: "devices[1].group", wrong: "once"},
		{name: "group missing", v: &VFIO{Container: f(0), Devices: []VFIODevice{{Address: a, GroupID: 7}}}, field: "devices[0].group", wrong: "missing"},
		{name: "both", v: &VFIO{IOMMUFD: f(2), Container: f(0), Devices: []VFIODevice{{Address: a, File: f(3), Group: f(1)}}}, field: "devices[0].group", wrong: "one of them"},
		{name: "address", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: "3b:00.1", File: f(1)}}}, field: "devices[0].address", wrong: "3b:00.1"},
		{name: "number", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: a, File: f(1), Number: -1}}}, field: "devices[0].number", wrong: "from 0"},
		{name: "group number", v: &VFIO{Container: f(0), Devices: []VFIODevice{{Address: a, GroupID: -1, Group: f(1)}}}, field: "devices[0].groupId", wrong: "from 0"},
		{name: "too many", v: &VFIO{Devices: make([]VFIODevice, MaxVFIODevices+1)}, field: "devices", wrong: "at most"},
		{name: "slot", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: a, File: f(1), Slot: true}}}, slots: 1},
		{name: "no slot", v: &VFIO{IOMMUFD: f(0), Devices: []VFIODevice{{Address: a, File: f(1), Slot: true}}}, field: "devices[0].slot", wrong: "too few"},
		{name: "peer to peer", v: &VFIO{Container: f(0), PeerToPeer: true}},
		{name: "peer to peer by iommufd", v: &VFIO{IOMMUFD: f(1), Container: f(0), PeerToPeer: true}, field: "peerToPeer", wrong: "group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			field, wrong := tt.v.Check(tt.slots)
			if field != tt.field || !strings.Contains(wrong, tt.wrong) || (wrong == "") != (tt.wrong == "") {
				t.Errorf("Check(%d) = %q, %q; want %q, %q", tt.slots, field, wrong, tt.field, tt.wrong)
			}
		})
	}
}

func TestValidPCIAddress(t *testing.T) {
	for s, want := range map[string]bool{
		"0000:00:00.0": true, "ffff:ff:1f.7": true, "0000:3b:00.1": true,
		"": false, "0000:00:20.0": false, "0000:00:00.8": false, "0000:00:00:0": false, "0000:0g:00.0": false,
		"0000:00:00.0\n": false, "../../:00.0x": false, "00A0:00:00.0": false, "10000:00:00.0": false,
	} {
		if got := ValidPCIAddress(s); got != want {
			t.Errorf("ValidPCIAddress(%q) = %v", s, got)
		}
	}
}

func TestLockedMemory(t *testing.T) {
	s := Spec{MemoryBytes: 1 << 30, Pluggable: &Pluggable{MaxBytes: 2 << 30}}
	if n := s.LockedMemory(); n != 0 {
		t.Errorf("LockedMemory() = %d without VFIO", n)
	}
	s.VFIO = &VFIO{}
	if n := s.LockedMemory(); n != 3<<30+lockedSpare {
		t.Errorf("LockedMemory() = %d", n)
	}
}
