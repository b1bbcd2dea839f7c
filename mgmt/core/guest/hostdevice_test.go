package guest

import (
	"errors"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// What a VMM says against a device comes to name the device.
func TestHostRefusal(t *testing.T) {
	devices := []protocol.VFIODevice{{Address: "0000:01:00.0"}, {Address: "0000:02:00.0"}}
	for _, tt := range []struct {
		err    error
		reason hostcall.Reason
		device string
		code   hostcall.Code
	}{
		{&protocol.Error{Code: protocol.Unavailable, Field: "vfio.devices[1].file", Message: "VFIO_DEVICE_ATTACH_IOMMUFD_PT: operation not permitted"},
			hostcall.NoInterruptRemapping, "0000:02:00.0", hostcall.FailedPrecondition},
		{&protocol.Error{Code: protocol.FailedPrecondition, Field: "newVfio.device", Message: "cannot be reset"}, hostcall.NotAssignable, "0000:01:00.0", hostcall.FailedPrecondition},
		{&protocol.Error{Code: protocol.ResourceExhausted, Field: "vfio.devices[0]", Message: "locked"}, "", "", hostcall.ResourceExhausted},
		{&protocol.Error{Code: protocol.Unavailable, Field: "vfio.devices[7]", Message: "of no device"}, "", "", hostcall.Unavailable},
		{&protocol.Error{Code: protocol.InvalidArgument, Field: "boot.kernel", Message: "no kernel"}, "", "", hostcall.InvalidArgument},
		{errors.New("gone"), "", "", hostcall.Unavailable},
	} {
		var got *hostcall.Error
		if err := hostRefusal(tt.err, devices); !errors.As(err, &got) || got.Code != tt.code {
			t.Errorf("hostRefusal(%v) = %v, want %s", tt.err, err, tt.code)
			continue
		}
		if (len(got.Violations) == 1) != (tt.reason != "") || tt.reason != "" && (got.Violations[0].Reason != tt.reason || got.Violations[0].Device != tt.device) {
			t.Errorf("hostRefusal(%v) has the violations %v, want %s of %s", tt.err, got.Violations, tt.reason, tt.device)
		}
	}
}

// Devices of the host's take no slots from what is attached later, as far as there can be more.
func TestHotSlots(t *testing.T) {
	for _, tt := range []struct{ asked, devices, want int }{{4, 0, 4}, {4, 2, 6}, {7, 3, 8}, {0, 3, 0}, {8, 1, 8}} {
		g := &hostcall.Guest{HotplugSlots: tt.asked, Devices: make([]hostcall.HostDevice, tt.devices)}
		if got := hotSlots(g); got != tt.want {
			t.Errorf("%d slots with %d devices: %d, want %d", tt.asked, tt.devices, got, tt.want)
		}
	}
}

// Devices cannot be had with a balloon, twice, or by a name that does not stay.
func TestCheckHostDevices(t *testing.T) {
	ok := hostcall.HostDevice{Name: "path-0000:00-01.0"}
	for _, tt := range []struct {
		g     hostcall.Guest
		field string
	}{
		{hostcall.Guest{Devices: []hostcall.HostDevice{ok, {Number: 1, Name: "dsn-1.0"}}}, ""},
		{hostcall.Guest{Devices: []hostcall.HostDevice{ok}, BalloonBytes: 4096}, "guest.balloonBytes"},
		{hostcall.Guest{Devices: []hostcall.HostDevice{ok, {Number: 1, Name: ok.Name}}}, "guest.devices[1].name"},
		{hostcall.Guest{Devices: []hostcall.HostDevice{ok, {Name: "dsn-1.0"}}}, "guest.devices[1].number"},
		{hostcall.Guest{Devices: []hostcall.HostDevice{{Name: "0000:01:00.0"}}}, "guest.devices[0].name"},
		{hostcall.Guest{Devices: []hostcall.HostDevice{{Name: "path-x", Number: 16}}}, "guest.devices[0].number"},
		{hostcall.Guest{Devices: make([]hostcall.HostDevice, 17)}, "guest.devices"},
	} {
		var e *hostcall.Error
		err := checkHostDevices(&tt.g)
		if errors.As(err, &e); (err == nil) != (tt.field == "") || e != nil && e.Field != tt.field {
			t.Errorf("%+v is refused with %v, want field %q", tt.g.Devices, err, tt.field)
		}
	}
}
