package hostcheck

import (
	"testing"

	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

// xeon is /proc/cpuinfo of two processors, epyc that of one.
const (
	xeon = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 79\nmodel name\t: Intel(R) Xeon(R) CPU E5-2690 v4 @ 2.60GHz\nstepping\t: 1\n\nprocessor\t: 1\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 80\nstepping\t: 2\n"
	epyc = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 23\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7551 32-Core Processor\nstepping\t: 2\n"
)

// What the image has is told beside what runs, whatever there is.
func TestMicrocode(t *testing.T) {
	both := func(version string) map[string]string {
		return map[string]string{cpus + "/cpu0/microcode/version": version, cpus + "/cpu1/microcode/version": version}
	}
	with := func(change map[string]string, more ...string) map[string]string {
		for i := 0; i < len(more); i += 2 {
			change[more[i]] = more[i+1]
		}
		return change
	}
	for _, tt := range []struct {
		name   string
		change map[string]string
		result hostcall.CheckResult
		want   string
	}{
		{"the image's", nil, hostcall.Passed, "Revision 0xb000040. The image has 0xb000040 for this processor (000406f1/80)."},
		{"newer by firmware", both("0xb000041"), hostcall.Passed, "Revision 0xb000041. The image has 0xb000040 for this processor (000406f1/80)."},
		{"not loaded", both("0xb00003f"), hostcall.Weak, "Revision 0xb00003f, though it could be newer. The image has 0xb000040 for this processor (000406f1/80)."},
		{"another platform", with(both("0x1"), cpus+"/cpu0/microcode/processor_flags", "0x10"), hostcall.Passed, "Revision 0x1. The image has none for this processor (000406f1/10)."},
		{"another stepping", with(both("0x1"), "proc/cpuinfo", "vendor_id: GenuineIntel\ncpu family: 6\nmodel: 79\nstepping: 2\n"), hostcall.Passed, "Revision 0x1. The image has none for this processor (000406f2/80)."},
		{"AMD's", with(both("0x800126e"), "proc/cpuinfo", epyc, cpus+"/cpu0/microcode/processor_flags", "0x0"), hostcall.Weak, "Revision 0x800126e, though it could be newer. The image has 0x800126f for this processor (00800f12)."},
		{"nothing in the image", with(both("0x1"), "microcode/contents", "gone"), hostcall.Passed, "Revision 0x1. The image has no microcode."},
		{"nonsense in the image", with(both("0x1"), "microcode/contents", "x y z"), hostcall.Passed, "Revision 0x1. The image has no microcode."},
		{"no processor", with(both("0x1"), "proc/cpuinfo", "model: x"), hostcall.Passed, "Revision 0x1. The image has none for this processor (00000000/80)."},
		{"a guest", both("gone"), hostcall.Unknown, "The processor tells no revision. The image has 0xb000040 for this processor (000406f1/80)."},
		{"different", map[string]string{cpus + "/cpu1/microcode/version": "0x1"}, hostcall.Weak, "Processors have 2 revisions. The image has 0xb000040 for this processor (000406f1/80)."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if f := find(t, read(nil, tt.change), "microcode"); f.Result != tt.result || f.Detail != tt.want {
				t.Errorf("%+v, want %s, %s", f, tt.result, tt.want)
			}
		})
	}
}
