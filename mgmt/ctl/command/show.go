package command

import (
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// show writes the resources of these names: one as an object, several as a
// list. Those that are found are shown although others are not.
func show[M proto.Message](a *app, names []string, rows func(M) *render.Rows, get func(name string) (M, error)) error {
	if len(names) == 1 {
		m, err := get(names[0])
		if err != nil {
			return err
		}
		return render.Message(a.Out, a.format, m, func() *render.Rows { return rows(m) })
	}
	var found []M
	failed := forEach(names, func(n string) error {
		m, err := get(n)
		if err == nil {
			found = append(found, m)
		}
		return err
	})
	err := render.List(a.Out, a.format, found, func() *render.Rows {
		all := &render.Rows{}
		for i, m := range found {
			if i > 0 {
				all.Add("")
			}
			all.Lines = append(all.Lines, rows(m).Lines...)
		}
		return all
	})
	if err != nil {
		return errors.Join(err, failed)
	}
	return failed
}
