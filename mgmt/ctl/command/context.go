package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/pki"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/render"
)

// contextCommand holds what manages contexts.
func (a *app) contextCommand() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List contexts",
		Long:    "List the contexts; a star marks the one in use.",
		Example: "  ashlarctl context list\n  ashlarctl context list -o json",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return a.contextList() },
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Use a context from now on",
		Long:              "Make a context the one that commands use where neither --context nor $ASHLAR_CONTEXT names another.",
		Example:           "  ashlarctl context use lab",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.firstArg(a.completeContexts),
		RunE:              func(_ *cobra.Command, args []string) error { return a.contextUse(args[0]) },
	}
	show := &cobra.Command{
		Use: "show [NAME]", Short: "Show a context",
		Long:              "Show a context (the one in use where none is named) and the fingerprints of its certificates. Keys are not shown.",
		Example:           "  ashlarctl context show\n  ashlarctl context show lab -o yaml",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.firstArg(a.completeContexts),
		RunE:              func(_ *cobra.Command, args []string) error { return a.contextShow(args) },
	}
	del := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete contexts",
		Long:              "Delete contexts. Certificates and keys that `config init` made stay where they are, because the authority's key cannot be made again.",
		Example:           "  ashlarctl context delete lab",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeContexts,
		RunE:              func(_ *cobra.Command, args []string) error { return a.contextDelete(args) },
	}
	a.formatFlag(list, show)
	return group("context", "Manage the contexts that name hosts",
		"A context says how to reach a host (address, name in its certificate, CA) and as whom (client certificate, key).",
		"  ashlarctl context list\n  ashlarctl context use lab", list, use, show, del)
}

// contextInfo is a context as it is shown.
type contextInfo struct {
	Name        string `json:"name"`
	Current     bool   `json:"current"`
	Address     string `json:"address"`
	ServerName  string `json:"serverName,omitempty"`
	CA          string `json:"caFingerprint,omitempty"`
	Certificate string `json:"certificateFingerprint,omitempty"`
	User        string `json:"user,omitempty"`
	Expires     string `json:"expires,omitempty"`
}

func (a *app) contextList() error {
	_, file, err := a.contextFile()
	if err != nil {
		return err
	}
	infos := []contextInfo{}
	for _, c := range file.Contexts {
		infos = append(infos, contextInfo{Name: c.Name, Current: c.Name == file.Current, Address: c.Address, ServerName: c.ServerName})
	}
	return render.Value(a.Out, a.format, infos, func() *render.Rows {
		r := &render.Rows{Header: []string{"", "NAME", "ADDRESS", "SERVER NAME"}}
		for _, i := range infos {
			mark := ""
			if i.Current {
				mark = "*"
			}
			r.Add(mark, i.Name, i.Address, i.ServerName)
		}
		return r
	})
}

// contextFile loads the contexts.
func (a *app) contextFile() (contexts.Dir, *contexts.File, error) {
	dir, err := a.dir()
	if err != nil {
		return "", nil, err
	}
	file, err := dir.Load()
	return dir, file, err
}

func (a *app) contextUse(name string) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	err = dir.Update(func(f *contexts.File) error {
		c, err := f.Lookup(name)
		if err != nil {
			return fault.With(fault.NotFound, err)
		}
		f.Current = c.Name
		return nil
	})
	if err != nil {
		return err
	}
	a.say("context %s is in use", name)
	return nil
}

func (a *app) contextShow(args []string) error {
	name := a.contextName()
	if len(args) > 0 {
		name = args[0]
	}
	dir, file, err := a.contextFile()
	if err != nil {
		return err
	}
	c, err := file.Lookup(name)
	if err != nil {
		return fault.With(fault.NotFound, err)
	}
	m, err := dir.Material(c)
	if err != nil {
		return err
	}
	i := contextInfo{
		Name: c.Name, Current: c.Name == file.Current, Address: c.Address, ServerName: c.ServerName,
		CA: pki.Fingerprint(m.CA), Certificate: pki.Fingerprint(m.Certificate),
	}
	cert, err := pki.ParseCertificate(m.Certificate)
	if err != nil {
		return fmt.Errorf("context %s: certificate: %w", c.Name, err)
	}
	i.User, i.Expires = cert.Subject.CommonName, cert.NotAfter.UTC().Format("2006-01-02")
	return render.Value(a.Out, a.format, i, func() *render.Rows {
		return &render.Rows{Lines: [][]string{
			{"Name:", i.Name}, {"Address:", i.Address}, {"Server name:", i.ServerName}, {"User:", i.User},
			{"Expires:", i.Expires}, {"CA:", i.CA}, {"Certificate:", i.Certificate},
		}}
	})
}

func (a *app) contextDelete(names []string) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	err = dir.Update(func(f *contexts.File) error {
		for _, n := range names {
			if err := f.Delete(n); err != nil {
				return fault.With(fault.NotFound, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range names {
		a.say("context %s deleted", n)
	}
	return nil
}
