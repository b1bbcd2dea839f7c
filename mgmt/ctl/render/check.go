package render

import (
	"fmt"
	"strings"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// HostCheck is a table with a line for each finding, and behind it what to do.
func HostCheck(c *ashlarv1.HostCheck) *Rows {
	r := &Rows{Header: []string{"CHECK", "RESULT", "DETAIL"}}
	weak := 0
	for _, f := range c.GetFindings() {
		result := strings.ToLower(strings.TrimPrefix(f.GetResult().String(), "RESULT_"))
		if f.GetRequired() {
			result += ", required"
		}
		r.Add(f.GetName(), result, f.GetDetail())
		if f.GetAdvice() != "" {
			r.Add("", "", "-> "+f.GetAdvice())
		}
		if f.GetResult() == ashlarv1.HostCheck_RESULT_WEAK {
			weak++
		}
	}
	switch {
	case c.GetGuestsRefused():
		r.Add("", "", "Virtual machines are not started: what is required has not passed.")
	case weak > 0:
		r.Add("", "", fmt.Sprintf("%d of %d are weak.", weak, len(c.GetFindings())))
	}
	return r
}
