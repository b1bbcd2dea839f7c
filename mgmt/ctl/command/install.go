package command

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/pki"
)

// Files of an installation, in a folder named as the context.
const (
	caFile       = "ca.pem"
	caKeyFile    = "ca-key.pem"
	adminFile    = "admin.pem"
	adminKeyFile = "admin-key.pem"
)

// documentFields are the flags of `config init` by the fields they set.
var documentFields = fieldTable{
	"hostname":               "--host-name",
	"network.interface":      "--interface",
	"network.static.address": "--static",
	"network.static.gateway": "--gateway",
	"network.static.dns[]":   "--dns",
	"api.port":               "--port",
	"disks[]":                "--disk",
	"disks":                  "--disk",
	"guestNetworks[]":        "--guest-network",
	"guestNetworks":          "--guest-network",
	"ntp.servers[]":          "--ntp",
	"ntp.servers":            "--ntp",
}

// adminName is the common name of the client certificate.
const adminName = "admin"

// An identity is who the operator is: the authority, and a client of it.
type identity struct {
	authority *pki.Authority
	// folder is where the files lie, relative to the directory of contexts.
	folder string
	// admin is nil where the files are there already.
	admin *pki.Pair
}

// install makes a context and a configuration document; with the authority of
// the context named from, or a new one where that is empty.
func (a *app) install(fl *hostFlags, from string) error {
	dir, err := a.dir()
	if err != nil {
		return err
	}
	doc, err := fl.document()
	if err != nil {
		return fault.With(fault.Usage, err)
	}
	c := contexts.Context{Name: a.context, Address: a.address, ServerName: fl.name}
	if c.Name == "" {
		c.Name = fl.name
	}
	if c.Address == "" {
		c.Address = net.JoinHostPort(fl.name, strconv.Itoa(fl.port))
	}
	if err := checkNew(dir, c, fl, from == ""); err != nil {
		return err
	}
	id, err := a.identity(dir, c.Name, from)
	if err != nil {
		return err
	}
	text, err := a.issue(doc, id, fl.certificateNames(c.Address))
	if err != nil {
		return err
	}
	if err := id.write(dir); err != nil {
		return err
	}
	if err := contexts.WriteFile(fl.out, text); err != nil {
		if !fl.force { // else there may have been some before
			err = errors.Join(err, id.remove(dir))
		}
		return err
	}
	if err := putContext(dir, c, id, fl.force); err != nil {
		return err
	}
	a.nextSteps(fl, dir, id, c)
	return nil
}

// checkNew refuses what would overwrite something, before anything is made.
func checkNew(dir contexts.Dir, c contexts.Context, fl *hostFlags, authority bool) error {
	if err := contexts.CheckName(c.Name); err != nil {
		return fault.With(fault.Usage, err)
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fault.With(fault.Usage, fmt.Errorf("--address %s: want HOST:PORT", c.Address))
	}
	if fl.force {
		return nil
	}
	file, err := dir.Load()
	if err != nil {
		return err
	}
	if _, err := file.Lookup(c.Name); err == nil {
		return conflict("context %s: %v", c.Name, contexts.ErrExists)
	}
	if exists(fl.out) {
		return conflict("%s exists already", fl.out)
	}
	for _, name := range []string{caFile, caKeyFile, adminFile, adminKeyFile} {
		if p := dir.Path(c.Name, name); authority && exists(p) {
			return conflict("%s exists already", p)
		}
	}
	return nil
}

func conflict(format string, args ...any) error {
	return fault.With(fault.Conflict, fmt.Errorf(format+": nothing was changed; choose another name, or overwrite it with --force", args...))
}

// identity makes one, or takes up that of a context.
func (a *app) identity(dir contexts.Dir, name, from string) (*identity, error) {
	if from != "" {
		return loadIdentity(dir, from)
	}
	ca, err := pki.NewAuthority("Ashlar CA "+name, a.Now())
	if err != nil {
		return nil, err
	}
	admin, err := ca.Client(adminName, a.Now())
	if err != nil {
		return nil, err
	}
	return &identity{authority: ca, folder: name, admin: &admin}, nil
}

// loadIdentity takes up the authority of a context.
func loadIdentity(dir contexts.Dir, from string) (*identity, error) {
	file, err := dir.Load()
	if err != nil {
		return nil, err
	}
	c, err := file.Lookup(from)
	if err != nil {
		return nil, fault.With(fault.NotFound, err)
	}
	if filepath.Base(c.CA) != caFile {
		return nil, fmt.Errorf("context %s was not made by `config init`: there is no authority to issue with", from)
	}
	folder := filepath.Dir(c.CA)
	var p pki.Pair
	if p.Certificate, err = os.ReadFile(dir.Path(folder, caFile)); err == nil {
		p.Key, err = os.ReadFile(dir.Path(folder, caKeyFile))
	}
	if err != nil {
		return nil, fmt.Errorf("context %s: the authority to issue with is not there: %w", from, err)
	}
	ca, err := pki.LoadAuthority(p)
	if err != nil {
		return nil, fmt.Errorf("context %s: %w", from, err)
	}
	return &identity{authority: ca, folder: folder}, nil
}

// issue completes the document with a certificate for names and writes it.
func (a *app) issue(doc *config.Document, id *identity, names []string) ([]byte, error) {
	host, err := id.authority.Host(names, a.Now())
	if err != nil {
		return nil, err
	}
	doc.API.CA = string(id.authority.Certificate)
	doc.API.Certificate, doc.API.Key = string(host.Certificate), string(host.Key)
	b, err := doc.Marshal()
	var fields config.Errors
	if errors.As(err, &fields) {
		var f failures
		for _, e := range fields { // the line is one of a file that nobody has
			what := documentFields.name(e.Path)
			if what == "" {
				what = e.Path
			}
			f = append(f, fault.With(fault.Usage, fmt.Errorf("%s: %s", what, e.Problem)))
		}
		return nil, f
	}
	return b, err
}

// write puts a new identity's files into their folder.
func (id *identity) write(dir contexts.Dir) error {
	if id.admin == nil {
		return nil
	}
	if err := os.MkdirAll(dir.Path(id.folder), 0o700); err != nil {
		return fmt.Errorf("write certificates: %w", err)
	}
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{caFile, id.authority.Certificate}, {caKeyFile, id.authority.Key},
		{adminFile, id.admin.Certificate}, {adminKeyFile, id.admin.Key},
	} {
		if err := contexts.WriteFile(dir.Path(id.folder, f.name), f.content); err != nil {
			return err
		}
	}
	return nil
}

// remove takes back what write has written, so that the same command can be
// given again.
func (id *identity) remove(dir contexts.Dir) error {
	if id.admin == nil {
		return nil
	}
	var errs []error
	for _, name := range []string{caFile, caKeyFile, adminFile, adminKeyFile} {
		errs = append(errs, os.Remove(dir.Path(id.folder, name)))
	}
	_ = os.Remove(dir.Path(id.folder)) // if there is nothing else in it
	return errors.Join(errs...)
}

// putContext adds the context and makes it the current one.
func putContext(dir contexts.Dir, c contexts.Context, id *identity, force bool) error {
	c.CA, c.Certificate, c.Key = filepath.Join(id.folder, caFile), filepath.Join(id.folder, adminFile), filepath.Join(id.folder, adminKeyFile)
	return dir.Update(func(f *contexts.File) error {
		if _, err := f.Lookup(c.Name); err == nil && !force {
			return conflict("context %s: %v", c.Name, contexts.ErrExists)
		}
		f.Put(c)
		f.Current = c.Name
		return nil
	})
}

// nextSteps says what was made and what to do with it.
func (a *app) nextSteps(fl *hostFlags, dir contexts.Dir, id *identity, c contexts.Context) {
	a.say("Made:")
	a.say("  %s  the host's configuration, with its private key: keep it secret", fl.out)
	if id.admin != nil {
		a.say("  %s  authority and admin certificate, with their private keys: keep a copy", dir.Path(id.folder))
	}
	a.say("  context %s  (%s), in use from now on", c.Name, c.Address)
	a.say("Next:")
	a.say("  ashlarctl image configure IMAGE --config %s   puts the configuration into the host's image", fl.out)
	a.say("  dd if=IMAGE of=/dev/sdX bs=4M conv=fsync      writes the image to a stick; boot the host from it")
	a.say("  ashlarctl host get --retry 5m                 waits for the host and shows it")
}

// parseDisks reads the values of --disk of `config init`.
func parseDisks(values []string, erase bool) ([]config.Disk, error) {
	if len(values) == 1 && values[0] == "none" {
		return nil, nil
	}
	var disks []config.Disk
	for _, s := range values {
		d := config.Disk{Erase: erase}
		key, value, assigned := strings.Cut(s, "=")
		switch {
		case s == "any":
			d.Any = true
		case assigned && key == "serial" && value != "":
			d.Serial = value
		case assigned && key == "path" && value != "":
			d.Path = value
		case assigned && key == "model" && value != "":
			d.Model = value
		default:
			return nil, fmt.Errorf("--disk %s: want any, serial=S, path=P, model=M, or none alone", s)
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// parseGuestNetwork reads NAME=SUBNET.
func parseGuestNetwork(s string) (config.GuestNetwork, error) {
	name, subnet, ok := strings.Cut(s, "=")
	if !ok || name == "" || subnet == "" {
		return config.GuestNetwork{}, fmt.Errorf("--guest-network %s: want NAME=SUBNET, such as default=10.88.0.0/24", s)
	}
	return config.GuestNetwork{Name: name, Subnet: subnet}, nil
}
