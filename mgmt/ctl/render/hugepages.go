package render

import (
	"fmt"
	"strconv"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// HugepagePools is a table with a line for each pool, and for each node where there are
// several.
func HugepagePools(pools []*ashlarv1.HugepagePool) *Rows {
	r := &Rows{Header: []string{"PAGES", "NODE", "TOTAL", "FREE", "RESERVED", "SURPLUS", "CONFIGURED"}}
	n := func(v int64) string { return strconv.FormatInt(v, 10) }
	for _, p := range pools {
		configured := int64(0)
		for _, node := range p.GetNodes() {
			configured += node.GetConfiguredPages()
		}
		r.Add(ID(p.GetName()), "all", n(p.GetTotalPages()), n(p.GetFreePages()), n(p.GetReservedPages()), n(p.GetSurplusPages()), n(configured))
		for _, node := range p.GetNodes() {
			if len(p.GetNodes()) > 1 {
				r.Add("", fmt.Sprint(node.GetId()), n(node.GetTotalPages()), n(node.GetFreePages()), "", n(node.GetSurplusPages()), n(node.GetConfiguredPages()))
			}
		}
	}
	return r
}
