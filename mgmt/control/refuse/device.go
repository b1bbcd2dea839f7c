package refuse

import (
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// devicePrefix goes before the addresses of PCI devices.
const devicePrefix = "pciDevices/"

// devices is core's refusal to give devices to a guest: a violation for each that is concerned.
// The reason is that of the first.
func devices(he *hostcall.Error) error {
	f := &errdetails.PreconditionFailure{}
	for _, v := range he.Violations {
		f.Violations = append(f.Violations, &errdetails.PreconditionFailure_Violation{Type: string(v.Reason), Subject: devicePrefix + v.Device, Description: v.Message})
	}
	return New(connect.CodeFailedPrecondition, string(he.Violations[0].Reason), he.Message, f)
}

// Violations are those of a refusal about devices, with the names of these; none of other errors.
func Violations(err error) (vs []hostcall.Violation) {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return nil
	}
	for _, d := range ce.Details() {
		v, err := d.Value()
		f, ok := v.(*errdetails.PreconditionFailure)
		if err != nil || !ok {
			continue
		}
		for _, one := range f.GetViolations() {
			vs = append(vs, hostcall.Violation{Reason: hostcall.Reason(one.GetType()), Device: one.GetSubject(), Message: one.GetDescription()})
		}
	}
	return vs
}
