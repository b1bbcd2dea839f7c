package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func example(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseExample(t *testing.T) {
	d, err := Parse(example(t))
	if err != nil {
		t.Fatal(err)
	}
	api := d.API
	d.API.CA, d.API.Certificate, d.API.Key = "", "", ""
	want := &Document{
		Version:  1,
		Hostname: "rack3-unit7.example.com",
		Network: Network{Interface: "52:54:00:12:34:56", Static: &Static{
			Address: "192.0.2.10/24", Gateway: "192.0.2.1", DNS: []string{"192.0.2.53", "2001:db8::53"},
		}},
		API:           API{Port: 8443},
		Disks:         []Disk{{Serial: "S4EVNX0R123456", Erase: true}, {Model: "Samsung SSD 970 EVO Plus 1TB"}, {Path: "/dev/sda"}, {Any: true}},
		GuestNetworks: []GuestNetwork{{Name: "default", Subnet: "10.88.0.0/24"}, {Name: "lab", Subnet: "10.89.0.0/22", MTU: 9000}},
		NTP:           NTP{Servers: []string{"ntp.example.com", "192.0.2.123"}},
		GuestCPUs:     GuestCPUs{Overcommit: 4, Reserved: []int{0, 1}},
		Security:      Security{Require: []string{"vulnerabilities/spectre_v2", "iommu", "ksm"}},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("Parse(example) differs (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(api.Key, "-----BEGIN PRIVATE KEY-----\n") {
		t.Errorf("key = %.40q, want PEM", api.Key)
	}
}

func TestMarshalReadsBack(t *testing.T) {
	d, err := Parse(example(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, edit := range []func(*Document){
		func(*Document) {},
		func(d *Document) { d.Network = Network{Interface: "auto", DHCP: true}; d.NTP = NTP{} },
		func(d *Document) { d.GuestNetworks = []GuestNetwork{}; d.Disks = nil },
		func(d *Document) { d.Security = Security{} },
		func(d *Document) { d.Disks = []Disk{{Serial: "0123"}, {Serial: "true"}, {Model: "1e3: # x"}} },
	} {
		want := *d
		edit(&want)
		b, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("%v in\n%s", err, b)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("document changed (-want +got):\n%s", diff)
		}
	}
}

func TestDefaultIsCompleteButForIdentity(t *testing.T) {
	d := Default()
	_, err := d.Marshal()
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 3 {
		t.Fatalf("Marshal(Default()) = %v, want 3 errors", err)
	}
	for i, path := range []string{"api.ca", "api.certificate", "api.key"} {
		if errs[i].Path != path {
			t.Errorf("error %d is about %s, want %s", i, errs[i].Path, path)
		}
	}
}

// TestParseErrors edits the example and wants the line of the edit named.
func TestParseErrors(t *testing.T) {
	good := string(example(t))
	stranger := selfSigned(t, "stranger")
	for _, tt := range []struct {
		name, old, new string
		want           []string // substrings, one per error, in order
	}{
		{"no version", "version: 1\n", "", []string{"version: is missing"}},
		{"version 2", "version: 1\n", "version: 2\n", []string{"line 2, column 10: version: is 2, want 1 to 1"}},
		{"unknown field", "hostname:", "hostnme:", []string{"line 5, column 1: hostnme: no such field; there are: version, hostname"}},
		{"twice", "\nnetwork:", "\nhostname: b\nnetwork:", []string{"hostname: is given twice, first in line 5"}},
		{"host name", "hostname: rack3-unit7", "hostname: rack3_unit7", []string{"line 5, column 11: hostname:"}},
		{"boolean as text", "hostname: rack3-unit7.example.com", "hostname: true", []string{`hostname: is "true", want text (in quotes: "true")`}},
		{"interface", `"52:54:00:12:34:56"`, `52:54`, []string{"line 10, column 14: network.interface:"}},
		{"both ways", "  static:", "  dhcp: true\n  static:", []string{"network.static: cannot stand beside"}},
		{"no way", "  static:\n    address: 192.0.2.10/24\n    gateway: 192.0.2.1\n    dns: [192.0.2.53, \"2001:db8::53\"]", "  dhcp: false", []string{"network.dhcp: is false and there is no static"}},
		{"address", "192.0.2.10/24", "192.0.2.10", []string{"line 13, column 14: network.static.address:"}},
		{"network address", "192.0.2.10/24", "192.0.2.0/24", []string{"network.static.address: \"192.0.2.0/24\" is the network's"}},
		{"broadcast", "192.0.2.10/24", "192.0.2.255/24", []string{"network.static.address:"}},
		{"gateway elsewhere", "gateway: 192.0.2.1", "gateway: 192.0.3.1", []string{"network.static.gateway: 192.0.3.1 is not within 192.0.2.0/24"}},
		{"dns", `"2001:db8::53"`, `nowhere`, []string{"line 15, column 23: network.static.dns[1]:"}},
		{"dns not a list", `[192.0.2.53, "2001:db8::53"]`, `192.0.2.53`, []string{`network.static.dns: is "192.0.2.53", want a list`}},
		{"port", "port: 8443", "port: 70000", []string{"line 19, column 9: api.port: is 70000, want 1 to 65535"}},
		{"port as text", "port: 8443", `port: "8443"`, []string{`api.port: is "8443", want a whole number`}},
		{"no over-commit", "overcommit: 4", "overcommit: 0", []string{"guestCPUs.overcommit: is 0, want 1 to 128"}},
		{"reserved twice", "reserved: [0, 1]", "reserved: [0, 0]", []string{"guestCPUs.reserved[1]: 0 stands there twice"}},
		{"reserved as text", "reserved: [0, 1]", "reserved: 0-1", []string{`guestCPUs.reserved: is "0-1", want a list`}},
		{"no key", "  key: |\n", "  kye: |\n", []string{"api.key: is missing", "api.kye: no such field"}},
		{"disk two ways", "  - path: /dev/sda", "  - path: /dev/sda\n    any: true", []string{"disks[2]: names the disk in 2 ways"}},
		{"disk no way", "  - any: true", "  - erase: true", []string{"disks[3]: names the disk in 0 ways"}},
		{"disk path", "/dev/sda", "/etc/passwd", []string{"disks[2].path:"}},
		{"disk path climbs", "/dev/sda", "/dev/../etc", []string{"disks[2].path:"}},
		{"guest subnet", "10.89.0.0/22", "10.89.1.0/22", []string{"guestNetworks[1].subnet: \"10.89.1.0/22\" has bits behind its prefix: write 10.89.0.0/22"}},
		{"guest subnet overlap", "10.89.0.0/22", "10.88.0.128/25", []string{"overlaps with 10.88.0.0/24 of guestNetworks[0]"}},
		{"guest subnet is the host's", "10.89.0.0/22", "192.0.2.0/25", []string{"overlaps with 192.0.2.0/24 of network.static.address"}},
		{"guest MTU too small", "mtu: 9000", "mtu: 1279", []string{"guestNetworks[1].mtu: is 1279, want 1280 to 9000"}},
		{"guest MTU too large", "mtu: 9000", "mtu: 9001", []string{"guestNetworks[1].mtu: is 9001, want 1280 to 9000"}},
		{"guest MTU as text", "mtu: 9000", "mtu: jumbo", []string{"guestNetworks[1].mtu:"}},
		{"guest name", "name: lab", "name: Lab", []string{"guestNetworks[1].name:"}},
		{"guest name twice", "name: lab", "name: default", []string{"guestNetworks[1].name: \"default\" is the name of another"}},
		{"ntp", "ntp.example.com", "1.2.3", []string{"ntp.servers[0]:"}},
		{"required check", "iommu, ksm", "iommu, kms", []string{`security.require[2]: "kms" is no check of the host: want one of vulnerabilities, smt,`}},
		{"part of a check", "iommu, ksm", "iommu/x", []string{"security.require[1]:"}},
		{"part of the processor's", "vulnerabilities/spectre_v2", "vulnerabilities/../x", []string{"security.require[0]:"}},
		{"alias", "hostname: rack3-unit7.example.com", "hostname: &a x\nntp: *a", []string{"hostname: has an anchor", "ntp: is an alias", "ntp: is given twice"}},
		{"tag", "hostname: r", "hostname: !!binary r", []string{"hostname: has a tag"}},
		{"null", "hostname: rack3-unit7.example.com", "hostname:", []string{"hostname: is empty, want text"}},
		{"several", "port: 8443", "port: 0\n  prot: 1\n  1: 2", []string{"line 19, column 9: api.port: is 0", "line 20, column 3: api.prot", "line 21, column 3: api.1: no such field"}},
		{"syntax", "  port: 8443", "  port: 8443\nfoo: [", []string{"line 20: is not valid YAML"}},
		{"indentation", "    address:", "      address:", []string{"line 14: is not valid YAML"}},
		{"tab", "    address:", "\taddress:", []string{"line 13: is not valid YAML"}},
		{"broken PEM", "    -----BEGIN PRIVATE KEY-----\n", "", []string{"api.key: is not PEM"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.old, tt.new, 1)
			if bad == good {
				t.Fatalf("the example has no %q", tt.old)
			}
			wantErrors(t, bad, tt.want)
		})
	}
	t.Run("host in the guest network left out", func(t *testing.T) {
		before, after, ok := strings.Cut(good, "\nguestNetworks:\n")
		_, after, ok2 := strings.Cut(after, "\n\n")
		if !ok || !ok2 {
			t.Fatal("the example has no guestNetworks")
		}
		doc := before + "\n" + after
		if _, err := Parse([]byte(doc)); err != nil {
			t.Fatal(err)
		}
		inside := strings.NewReplacer("192.0.2.10/24", "10.88.0.7/16", "gateway: 192.0.2.1\n", "gateway: 10.88.0.1\n").Replace(doc)
		wantErrors(t, inside, []string{"line 13, column 14: network.static.address: 10.88.0.0/16 overlaps with 10.88.0.0/24"})
	})
	t.Run("certificate of another CA", func(t *testing.T) {
		d, err := Parse([]byte(good))
		if err != nil {
			t.Fatal(err)
		}
		d.API.CA = stranger
		_, err = d.Marshal()
		if err == nil || !strings.Contains(err.Error(), "api.certificate: is not issued by the CA in api.ca") {
			t.Errorf("Marshal = %v, want it to refuse the certificate", err)
		}
	})
	t.Run("key of another certificate", func(t *testing.T) {
		d, err := Parse([]byte(good))
		if err != nil {
			t.Fatal(err)
		}
		d.API.Key = newKey(t)
		_, err = d.Marshal()
		if err == nil || !strings.Contains(err.Error(), "api.key: does not go with api.certificate") {
			t.Errorf("Marshal = %v, want it to refuse the key", err)
		}
	})
}

func wantErrors(t *testing.T, doc string, want []string) {
	t.Helper()
	d, err := Parse([]byte(doc))
	if d != nil {
		t.Errorf("Parse gave a document beside the error %v", err)
	}
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("Parse = %v, want Errors", err)
	}
	if len(errs) != len(want) {
		t.Errorf("%d errors, want %d:\n%v", len(errs), len(want), err)
	}
	for i := range min(len(errs), len(want)) {
		if !strings.Contains(errs[i].Error(), want[i]) {
			t.Errorf("error %d = %q, want %q in it", i, errs[i], want[i])
		}
		if errs[i].Line == 0 {
			t.Errorf("error %d names no line: %v", i, errs[i])
		}
	}
}

func TestParseNotADocument(t *testing.T) {
	for _, tt := range []struct{ name, doc, want string }{
		{"empty", "", "is empty"},
		{"comment", "# nothing\n", "is empty"},
		{"list", "- a\n", "is a list, want fields"},
		{"zero bytes", "version: 1\n\x00\x00", "line 2: has a zero byte"},
		{"syntax", "version: 1\nhostname: [a\n", "is not valid YAML"},
		{"two documents", "version: 1\n---\nversion: 1\n", "second YAML document"},
		{"too large", strings.Repeat("#", MaxSize+1), "want 65536 at most"},
		{"deep", strings.Repeat("[", 30000), "is not valid YAML"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.doc))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse = %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	d, err := Parse(example(t))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := certificates(d.API.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	c := certs[0]
	for _, tt := range []struct {
		name string
		at   time.Time
		want string
	}{
		{"in time", c.NotBefore.AddDate(1, 0, 0), ""},
		{"before", c.NotBefore.AddDate(-1, 0, 0), "is not valid before"},
		{"soon", c.NotAfter.AddDate(0, 0, -5), "expires on"},
		{"after", c.NotAfter.AddDate(0, 0, 5), "expired on"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(d.Warnings(tt.at), "\n")
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("Warnings = %q, want %q in it", got, tt.want)
			}
		})
	}
}

// selfSigned is the PEM certificate of a CA that issued nothing.
func selfSigned(t *testing.T, name string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now(), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func FuzzParse(f *testing.F) {
	f.Add(example(f))
	for _, s := range []string{
		"", "version: 1\n", "version: 1\nnetwork: {dhcp: false}\n", "a: &a [*a]\n", "? {a: b}\n: c\n",
		"version: 1\ndisks: [{any: true}, {serial: 1e9}]\n", "version: 1\nguestNetworks: [{name: a, subnet: 10.0.0.0/8}]\n",
		"version: 1\napi: {ca: \"-----BEGIN CERTIFICATE-----\\n-----END CERTIFICATE-----\"}\n", "\xef\xbb\xbfversion: 1\n", "%YAML 1.1\n---\n<<: {}\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			if d != nil || err.Error() == "" {
				t.Fatalf("Parse = %v, %v", d, err)
			}
			return
		}
		again, err := d.Marshal()
		if err != nil {
			t.Fatalf("accepted, but does not write back: %v", err)
		}
		e, err := Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, e); diff != "" {
			t.Fatalf("changed when written back:\n%s", diff)
		}
	})
}
