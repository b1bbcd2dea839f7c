package command

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

// configCommand holds what makes and checks configuration documents.
func (a *app) configCommand() *cobra.Command {
	validate := &cobra.Command{
		Use: "validate FILE...", Short: "Check configuration documents",
		Long:    "Check configuration documents as the host will: every error is named with its line.",
		Example: "  ashlarctl config validate ashlar.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			return forEach(files, func(file string) error {
				b, err := readDocument(file)
				if err != nil {
					return err
				}
				if err := a.validate(file, b); err != nil {
					return err
				}
				a.say("%s is right", file)
				return nil
			})
		},
	}
	return group("config", "Make and check the configuration document of a host",
		"The configuration document (YAML) says what a host is called, how it is reached, who may manage it and which disk it uses. `ashlarctl image configure` puts it into the host's image.",
		"  ashlarctl config init --host-name rack1 --address 192.0.2.10:8443\n  ashlarctl config validate ashlar.yaml",
		a.configInit(), a.configNewHost(), validate)
}

// validate checks a document and names every error with its line.
func (a *app) validate(file string, b []byte) error {
	doc, err := config.Parse(b)
	if err != nil {
		var f failures
		var fields config.Errors
		if !errors.As(err, &fields) {
			return fault.With(fault.Failure, fmt.Errorf("%s: %w", file, err))
		}
		for _, e := range fields {
			f = append(f, fmt.Errorf("%s: %w", file, e))
		}
		return f
	}
	for _, w := range doc.Warnings(a.Now()) {
		a.note("ashlarctl: warning: %s: %s", file, w)
	}
	return nil
}

// hostFlags describe a host in `config init` and `config new-host`.
type hostFlags struct {
	name, out        string
	names            []string
	port             int
	disks            []string
	erase            bool
	iface            string
	address, gateway string
	dns, ntp, guests []string
	force            bool
}

func (fl *hostFlags) register(a *app, cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&fl.name, "host-name", "ashlar", "the host's name, also in its certificate")
	f.StringArrayVar(&fl.names, "san", nil, "further name or address in the host's certificate (repeatable)")
	f.IntVar(&fl.port, "port", config.DefaultPort, "TCP port that the host serves")
	f.StringVar(&fl.out, "out", config.FileName, "file to write the document to")
	f.StringArrayVar(&fl.disks, "disk", []string{"any"}, "disk for guests: any, serial=S, path=P, model=M, or none (repeatable, the first that is there is used)")
	f.BoolVar(&fl.erase, "erase", false, "let the host format that disk even if it holds something else")
	f.StringVar(&fl.iface, "interface", "auto", "management interface: auto, a name or a MAC address")
	f.StringVar(&fl.address, "static", "", "the host's address, as 192.0.2.10/24 (default: by DHCP)")
	f.StringVar(&fl.gateway, "gateway", "", "with --static: the default router")
	f.StringArrayVar(&fl.dns, "dns", nil, "with --static: resolver (repeatable)")
	f.StringArrayVar(&fl.ntp, "ntp", nil, "time server (repeatable)")
	f.StringArrayVar(&fl.guests, "guest-network", nil, "network of guests: NAME=SUBNET (repeatable; default default=10.88.0.0/24)")
	f.BoolVar(&fl.force, "force", false, "overwrite what is there")
	a.must(cmd.MarkFlagFilename("out", "yaml"))
}

const initLong = `Make everything that a new installation needs: a certificate authority (ECDSA
P-256, 10 years), a client certificate for you (admin), a certificate for the
host, a context with these, and the host's configuration document. Nothing that
exists is overwritten, unless --force says so.

--context names the context (default: the host's name); --address is how you
reach the host (default: its name and port).`

func (a *app) configInit() *cobra.Command {
	var fl hostFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Make certificates, a context and a configuration document",
		Long: initLong,
		Example: `  ashlarctl config init --host-name rack1 --address 192.0.2.10:8443
  ashlarctl config init --context lab --host-name lab --address 127.0.0.1:8443 --disk serial=S3Z9NB0K --erase
  ashlarctl config init --host-name rack2 --static 192.0.2.11/24 --gateway 192.0.2.1 --dns 192.0.2.1`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.install(&fl, "")
		},
	}
	fl.register(a, cmd)
	return cmd
}

func (a *app) configNewHost() *cobra.Command {
	var fl hostFlags
	var from string
	cmd := &cobra.Command{
		Use: "new-host", Short: "Make a context and a configuration document for a further host",
		Long:              "Like `config init`, but with the authority and the client certificate of a context that `config init` made.",
		Example:           "  ashlarctl config new-host --from rack1 --host-name rack2 --address 192.0.2.11:8443 --out rack2.yaml",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			if from == "" {
				_, file, err := a.contextFile()
				if err != nil {
					return err
				}
				c, err := file.Lookup("")
				if err != nil {
					return fault.With(fault.Usage, err)
				}
				from = c.Name
			}
			return a.install(&fl, from)
		},
	}
	fl.register(a, cmd)
	cmd.Flags().StringVar(&from, "from", "", "context whose authority issues the host's certificate (default: the current one)")
	a.must(cmd.RegisterFlagCompletionFunc("from", a.completeContexts))
	return cmd
}

// document is the configuration without its TLS identity.
func (fl *hostFlags) document() (*config.Document, error) {
	d := config.Default()
	d.Hostname, d.API.Port = fl.name, fl.port
	d.Network.Interface = fl.iface
	if fl.address != "" {
		d.Network.DHCP = false
		d.Network.Static = &config.Static{Address: fl.address, Gateway: fl.gateway, DNS: fl.dns}
	} else if fl.gateway != "" || len(fl.dns) > 0 {
		return nil, errors.New("--gateway and --dns need --static: by DHCP the host is told them")
	}
	d.NTP.Servers = fl.ntp
	var err error
	if d.Disks, err = parseDisks(fl.disks, fl.erase); err != nil {
		return nil, err
	}
	if len(fl.guests) > 0 {
		d.GuestNetworks = nil
	}
	for _, s := range fl.guests {
		n, err := parseGuestNetwork(s)
		if err != nil {
			return nil, err
		}
		d.GuestNetworks = append(d.GuestNetworks, n)
	}
	return d, nil
}

// certificateNames are the names for the host's certificate: its own, the
// host part of address, its fixed address, and further ones.
func (fl *hostFlags) certificateNames(address string) []string {
	names := []string{fl.name}
	add := func(n string) {
		for _, have := range names {
			if have == n {
				return
			}
		}
		names = append(names, n)
	}
	if h, _, err := net.SplitHostPort(address); err == nil && h != "" {
		add(h)
	}
	if ip, _, err := net.ParseCIDR(fl.address); err == nil {
		add(ip.String())
	}
	for _, n := range fl.names {
		add(n)
	}
	return names
}

// exists tells whether something has that name.
func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
