package render

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// Balloon is how much memory a virtual machine gives back, and its statistics.
func Balloon(b *ashlarv1.VirtualMachineBalloon) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(b.GetName()))
	r.Add("Asked for:", size.Format(b.GetTargetBytes()))
	r.Add("Given back:", size.Format(b.GetActualBytes()))
	if b.GetStatisticsTime() == nil {
		return r
	}
	r.Add("Statistics of:", when(b.GetStatisticsTime()))
	for _, name := range slices.Sorted(maps.Keys(b.GetStatistics())) {
		n := b.GetStatistics()[name]
		text := strconv.FormatInt(n, 10)
		if strings.HasSuffix(name, "_bytes") {
			text = size.Format(n)
		}
		r.Add("  "+name+":", text)
	}
	return r
}
