package lab

import (
	"strings"
	"testing"
)

func TestIOMMU(t *testing.T) {
	for kind, want := range map[string]string{"": "intremap=on", WithoutIOMMU: "", WithoutRemapping: "intremap=off"} {
		got, err := (&Lab{Config{IOMMU: kind}}).iommu()
		if err != nil || !strings.Contains(strings.Join(got, " "), want) || (want == "") != (len(got) == 0) {
			t.Errorf("IOMMU %q is %q, %v, want %q", kind, got, err, want)
		}
	}
	if got, err := (&Lab{Config{IOMMU: "some"}}).iommu(); err == nil {
		t.Errorf("IOMMU of no known kind is %q", got)
	}
}
