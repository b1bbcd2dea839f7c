package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a document. The error is an Errors with everything that is wrong,
// and the document nil then. Values left out have their defaults. Certificates
// out of their time are no error here, as a host's clock can be wrong: see
// Document.Warnings.
func Parse(b []byte) (*Document, error) {
	root, err := node(b)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	d := r.document(root)
	if len(r.errs) > 0 {
		r.errs.sort()
		return nil, r.errs
	}
	return d, nil
}

func (r *reader) document(root *yaml.Node) *Document {
	o := r.object(root, "", "version", "hostname", "network", "api", "disks", "guestNetworks", "ntp", "guestCPUs", "security")
	d := Default()
	d.Version = r.integer(o.require("version", "write version: 1"), "version", Version, Version)
	d.Hostname = o.text("hostname", d.Hostname, checkHostname)
	if n := o.fields["network"]; n != nil {
		d.Network = r.network(n)
	}
	if n := o.require("api", "it says who may manage the host; `ashlarctl config init` makes it"); n != nil {
		d.API = r.api(n)
	}
	d.Disks = r.disks(o.fields["disks"])
	if n := o.fields["guestNetworks"]; n != nil {
		d.GuestNetworks = r.guestNetworks(n, d.Network.Static)
	} else if s := d.Network.Static; s != nil {
		r.apart(child(child(o.fields["network"], "static"), "address"), s, d.GuestNetworks)
	}
	if n := o.fields["ntp"]; n != nil {
		d.NTP.Servers = r.object(n, "ntp", "servers").texts("servers", MaxNTP, checkServer)
	}
	if n := o.fields["guestCPUs"]; n != nil {
		d.GuestCPUs = r.guestCPUs(n)
	}
	if n := o.fields["security"]; n != nil {
		d.Security.Require = r.object(n, "security", "require").texts("require", MaxRequire, checkRequired)
	}
	return d
}

func (r *reader) guestCPUs(n *yaml.Node) GuestCPUs {
	const path = "guestCPUs"
	o := r.object(n, path, "overcommit", "reserved")
	out := GuestCPUs{Overcommit: o.integer("overcommit", DefaultOvercommit, 1, MaxOvercommit)}
	for i, e := range r.list(o.fields["reserved"], o.at("reserved"), MaxReservedCPUs) {
		cpu := r.integer(e, index(o.at("reserved"), i), 0, MaxCPU)
		if slices.Contains(out.Reserved, cpu) {
			r.fail(e, index(o.at("reserved"), i), "%d stands there twice", cpu)
		}
		out.Reserved = append(out.Reserved, cpu)
	}
	return out
}

// node is the YAML of b: a single document's root.
func node(b []byte) (root *yaml.Node, err error) {
	defer func() {
		// The YAML library panics on purpose inside; what escapes it by
		// mistake ends here.
		if p := recover(); p != nil {
			root, err = nil, Errors{{Problem: fmt.Sprintf("not readable as YAML: %v", p)}}
		}
	}()
	if len(b) > MaxSize {
		return nil, Errors{{Problem: fmt.Sprintf("is %d bytes, want %d at most", len(b), MaxSize)}}
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		line := 1 + bytes.Count(b[:i], []byte("\n"))
		return nil, Errors{{Line: line, Problem: "has a zero byte: this is not a text file"}}
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, Errors{{Line: 1, Problem: "is empty: write version: 1 and the rest, or start from `ashlarctl config init`"}}
	} else if err != nil {
		return nil, syntaxError(b, err)
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		return nil, Errors{{Line: second.Line, Column: second.Column, Problem: "a second YAML document (---) begins here, only one is read"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(b, err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, Errors{{Line: 1, Problem: "has no content"}}
	}
	return doc.Content[0], nil
}

var lineInError = regexp.MustCompile(`^line (\d+): `)

// syntaxError takes the line out of the YAML library's message, and puts a
// better one in its place where there is one.
func syntaxError(b []byte, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	e := FieldError{}
	if m := lineInError.FindStringSubmatch(text); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	if line := brokenLine(b); line > 0 {
		e.Line = line
	}
	e.Problem = "is not valid YAML: " + text
	return Errors{e}
}

// brokenLine is the line after the longest run of whole lines that is valid
// YAML. The library names the line where the surrounding group begins, often
// the first. It is 0 for a document that would take long.
func brokenLine(b []byte) int {
	lines := bytes.SplitAfter(b, []byte("\n"))
	if len(lines)*len(b) > 4<<20 {
		return 0
	}
	end := len(b)
	for i := len(lines) - 1; i >= 0; i-- {
		end -= len(lines[i])
		var n yaml.Node
		if yaml.Unmarshal(b[:end], &n) == nil {
			return i + 1
		}
	}
	return 0
}

func (r *reader) network(n *yaml.Node) Network {
	o := r.object(n, "network", "interface", "dhcp", "static")
	w := Network{Interface: o.text("interface", "auto", checkInterface)}
	static := o.fields["static"]
	w.DHCP = o.boolean("dhcp", static == nil)
	switch {
	case static == nil && !w.DHCP && o.fields["dhcp"] != nil && o.fields["dhcp"].Value == "false":
		r.fail(o.fields["dhcp"], "network.dhcp", "is false and there is no static set-up: give network.static or dhcp: true")
	case static != nil && w.DHCP:
		r.fail(static, "network.static", "cannot stand beside dhcp: true: remove one of them")
	}
	if static != nil {
		w.Static = r.static(static)
	}
	return w
}

func (r *reader) static(n *yaml.Node) *Static {
	o := r.object(n, "network.static", "address", "gateway", "dns")
	s := &Static{
		Address: r.text(o.require("address", "write it with its prefix, 192.0.2.10/24"), "network.static.address", checkAddress),
		DNS:     o.texts("dns", MaxDNS, checkIP),
	}
	s.Gateway = o.text("gateway", "", func(v string) error { return checkGateway(v, s.Address) })
	return s
}

func (r *reader) disks(n *yaml.Node) []Disk {
	var out []Disk
	for i, entry := range r.list(n, "disks", MaxDisks) {
		path := index("disks", i)
		o := r.object(entry, path, "serial", "path", "model", "any", "erase")
		d := Disk{
			Serial: o.text("serial", "", checkWord),
			Path:   o.text("path", "", checkDevice),
			Model:  o.text("model", "", checkWord),
			Any:    o.boolean("any", false),
			Erase:  o.boolean("erase", false),
		}
		ways := 0
		for _, name := range []string{"serial", "path", "model", "any"} {
			if o.fields[name] != nil {
				ways++
			}
		}
		if a := o.fields["any"]; a != nil && a.Value == "false" {
			r.fail(a, path+".any", "is false: leave it out")
		}
		if ways != 1 && entry.Kind == yaml.MappingNode {
			r.fail(entry, path, "names the disk in %d ways, want exactly one of serial, path, model, any: true", ways)
		}
		out = append(out, d)
	}
	return out
}
