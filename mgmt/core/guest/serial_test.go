package guest

import (
	"errors"
	"strings"
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

func TestCheckSerial(t *testing.T) {
	for ports, field := range map[string]string{
		"a,b,c,d,e,f,g": "", "a,b,c,d,e,f,g,h": "guest.serialPorts", "a,/": "guest.serialPorts[1]", "a,a": "guest.serialPorts[1]",
	} {
		err := checkSerial(&hostcall.Guest{SerialPorts: strings.Split(ports, ",")})
		var e *hostcall.Error
		if errors.As(err, &e); (err == nil) != (field == "") || err != nil && (e.Code != hostcall.InvalidArgument || e.Field != field) {
			t.Errorf("ports %s: %+v, want the field %q", ports, err, field)
		}
	}
}

// TestSerialRefusal says in core's words what a VMM answers.
func TestSerialRefusal(t *testing.T) {
	for code, field := range map[protocol.ErrorCode]string{
		protocol.InvalidArgument: "serialPort", protocol.FailedPrecondition: "port", protocol.ResourceExhausted: "busy", protocol.Internal: "",
	} {
		var e *hostcall.Error
		err := serialRefusal(&protocol.Error{Code: code, Message: "of a VMM"}, "agent.0")
		if !errors.As(err, &e) || e.Field != field || field != "" && (e.Code != hostcall.FailedPrecondition || !strings.Contains(e.Message, "agent.0")) {
			t.Errorf("%s: %+v, want the field %q", code, err, field)
		}
	}
}
