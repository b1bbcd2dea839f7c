package control_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// What core finds out about the host is told to clients; a result that control does not know
// is none.
func TestCheckHost(t *testing.T) {
	l := newLab(t)
	res, err := l.hosts.CheckHost(ctxOf(t), req(&ashlarv1.CheckHostRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	want := &ashlarv1.HostCheck{GuestsRefused: true, Findings: []*ashlarv1.HostCheck_Finding{
		{Name: "iommu", Result: ashlarv1.HostCheck_RESULT_WEAK, Detail: "Devices reach all of the memory.", Advice: "Switch it on.", Required: true},
		{Name: "ksm", Result: ashlarv1.HostCheck_RESULT_PASSED, Detail: "None."},
		{Name: "microcode", Result: ashlarv1.HostCheck_RESULT_UNKNOWN},
		{Name: "swap"},
	}}
	if d := cmp.Diff(want, res.Msg, protocmp.Transform()); d != "" {
		t.Errorf("check (-want +got):\n%s", d)
	}
}
