package command

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/contexts"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/fault"
)

func TestParseDisk(t *testing.T) {
	for in, want := range map[string]*ashlarv1.Disk{
		"debian":                   {Image: "images/debian"},
		"images/debian":            {Image: "images/debian"},
		"image=debian":             {Image: "images/debian"},
		"debian,size=4GiB":         {Image: "images/debian", SizeBytes: 4 << 30},
		"size=4GiB,image=debian":   {Image: "images/debian", SizeBytes: 4 << 30},
		",size=4GiB":               {SizeBytes: 4 << 30},
		"size=512":                 {SizeBytes: 512},
		"debian,size=":             nil,
		"debian,size=4GB":          nil,
		"debian,size=4G,size=5G":   nil,
		"debian,image=other":       nil,
		"debian,x=1":               nil,
		"debian,":                  nil,
		"debian,other":             nil,
		"size=0":                   nil,
		",":                        nil,
		"":                         nil,
		"=debian":                  nil,
		"debian,size=4GiB,size=4G": nil,
		"debian,bps=100MiB,iops=1000": {Image: "images/debian",
			Limits: &ashlarv1.DiskLimits{BytesPerSecond: 100 << 20, OperationsPerSecond: 1000}},
		"size=1GiB,bps=1MiB,bps-burst=2MiB,iops=10,iops-burst=20": {SizeBytes: 1 << 30,
			Limits: &ashlarv1.DiskLimits{BytesPerSecond: 1 << 20, BurstBytes: 2 << 20, OperationsPerSecond: 10, BurstOperations: 20}},
		"debian,bps=0,iops=0": {Image: "images/debian"},
		"debian,bps=fast":     nil,
		"debian,iops=-1":      nil,
		"debian,iops=1k":      nil,
	} {
		got, err := ParseDisk(in)
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || (err == nil) != (want != nil) {
			t.Errorf("ParseDisk(%q) = %v, %v (-want +got):\n%s", in, got, err, d)
		}
	}
}

func TestParseNetwork(t *testing.T) {
	for in, want := range map[string]*ashlarv1.NetworkInterface{
		"default":                             {Network: "default"},
		"name=default":                        {Network: "default"},
		"default,mac=02:00:00:00:00:0A":       {Network: "default", MacAddress: "02:00:00:00:00:0a"},
		"default,mac=02-00-00-00-00-0a":       {Network: "default", MacAddress: "02:00:00:00:00:0a"},
		"default,mac=":                        nil,
		"default,mac=03:00:00:00:00:0a":       nil,
		"default,mac=02:00:00:00:00:00:00:0a": nil,
		"default,ip=1":                        nil,
		"mac=02:00:00:00:00:0a":               nil,
		"":                                    nil,
	} {
		got, err := ParseNetwork(in)
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || (err == nil) != (want != nil) {
			t.Errorf("ParseNetwork(%q) = %v, %v (-want +got):\n%s", in, got, err, d)
		}
	}
}

func TestParseMemory(t *testing.T) {
	for in, want := range map[string]*ashlarv1.VirtualMachine{
		"64MiB":                        {MemoryBytes: 64 << 20},
		"size=1GiB":                    {MemoryBytes: 1 << 30},
		"1GiB,pages=default":           {MemoryBytes: 1 << 30, MemoryBacking: &ashlarv1.MemoryBacking{}},
		"1GiB,pages=transparent":       {MemoryBytes: 1 << 30, MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_TRANSPARENT}},
		"1GiB,pages=4KiB":              {MemoryBytes: 1 << 30, MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_4KIB}},
		"1GiB,pages=2MiB,populate=on":  {MemoryBytes: 1 << 30, MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_2MIB, Populate: true}},
		"2GiB,populate=off,pages=1GiB": {MemoryBytes: 2 << 30, MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_1GIB}},
		"1GiB,populate=on":             {MemoryBytes: 1 << 30, MemoryBacking: &ashlarv1.MemoryBacking{Populate: true}},
		"512MiB,max=4GiB":              {MemoryBytes: 512 << 20, MaxMemoryBytes: 4 << 30},
		"1GiB,max=2GiB,hotplug=256MiB,pages=transparent": {MemoryBytes: 1 << 30, MaxMemoryBytes: 2 << 30, HotplugMemoryBytes: 256 << 20,
			MemoryBacking: &ashlarv1.MemoryBacking{Pages: ashlarv1.MemoryBacking_PAGES_TRANSPARENT}},
		"1GiB,max=":                      nil,
		"1GiB,max=more":                  nil,
		"1GiB,populate=yes":              nil,
		"1GiB,populate":                  nil,
		"1GiB,pages=8KiB":                nil,
		"1GiB,pages=":                    nil,
		"pages=2MiB":                     nil,
		"":                               nil,
		"1GiB,node=0":                    nil,
		"1GiB,pages=2MiB,pages=1GiB":     nil,
		"a lot,pages=2MiB":               nil,
		"1GiB,size=2GiB,populate=on,x=y": nil,
	} {
		got, err := ParseMemory(in)
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || (err == nil) != (want != nil) {
			t.Errorf("ParseMemory(%q): %v (-want +got):\n%s", in, err, d)
		}
	}
}

func FuzzParseMemory(f *testing.F) {
	for _, s := range []string{"1GiB", "1GiB,pages=2MiB,populate=on", ",", "pages=2MiB", "0,populate=off", "1GiB,max=2GiB,hotplug=0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if vm, err := ParseMemory(s); vm.GetMemoryBytes() < 0 || vm.GetMaxMemoryBytes() < 0 || err != nil && vm != nil {
			t.Errorf("ParseMemory(%q) = %v, %v", s, vm, err)
		}
	})
}

func TestParseProcessor(t *testing.T) {
	for in, want := range map[string]*ashlarv1.Processor{
		"x86-64-v3":                             {Model: "x86-64-v3"},
		"model=host,threads=2":                  {Model: "host", Threads: 2},
		"sockets=2,cores=3,threads=1,hyperv=on": {Sockets: 2, Cores: 3, Threads: 1, Hyperv: true},
		"host,poll=50us,hyperv=off":             {Model: "host", HaltPoll: durationpb.New(50 * time.Microsecond)},
		"host,poll=0s":                          {Model: "host", HaltPoll: durationpb.New(0)},
		"host,poll=-1s":                         nil,
		"host,poll=5":                           nil,
		"host,sockets=0":                        nil,
		"host,sockets=300":                      nil,
		"host,hyperv=yes":                       nil,
		"host,hyperv":                           nil,
		"host,nodes=2":                          nil,
		"":                                      nil,
	} {
		got, err := ParseProcessor(in)
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || (err == nil) != (want != nil) {
			t.Errorf("ParseProcessor(%q) = %v, %v (-want +got):\n%s", in, got, err, d)
		}
	}
}

func FuzzParseProcessor(f *testing.F) {
	for _, s := range []string{"host", "x86-64-v2,sockets=2,cores=2,threads=2,hyperv=on,poll=1ms", ",", "poll=9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseProcessor(s)
		if (err == nil) == (p == nil) || p != nil && (p.Sockets < 0 || p.Cores < 0 || p.Threads < 0 || p.HaltPoll.AsDuration() < 0) {
			t.Errorf("ParseProcessor(%q) = %v, %v", s, p, err)
		}
	})
}

func FuzzParseDisk(f *testing.F) {
	for _, s := range []string{"debian,size=4GiB", ",size=1G", "image=a,size=1", "a,b", "=", "size=0", "a,image=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDisk(s)
		if (err == nil) == (d == nil) {
			t.Fatalf("ParseDisk(%q) = %v, %v", s, d, err)
		}
		if d != nil && (d.GetSizeBytes() < 0 || d.GetImage() == "" && d.GetSizeBytes() == 0) {
			t.Errorf("ParseDisk(%q) = %v", s, d)
		}
	})
}

func FuzzParseNetwork(f *testing.F) {
	for _, s := range []string{"default", "default,mac=02:00:00:00:00:01", ",", "name=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseNetwork(s)
		if (err == nil) == (n == nil) || n != nil && n.GetNetwork() == "" {
			t.Errorf("ParseNetwork(%q) = %v, %v", s, n, err)
		}
	})
}

func TestImageID(t *testing.T) {
	for in, want := range map[string]string{
		"/boot/vmlinuz-6.1.0-30-cloud-amd64": "vmlinuz-6.1.0-30-cloud-amd64",
		"Debian_12.IMG":                      "debian-12",
		"disk.raw":                           "disk",
		"..img":                              "",
		"_x_":                                "x",
		strings.Repeat("a", 80):              strings.Repeat("a", 63),
		"ümlaut":                             "mlaut",
	} {
		if got := imageID(in); got != want {
			t.Errorf("imageID(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFieldTable(t *testing.T) {
	for in, want := range map[string]string{
		"virtual_machine_id":                        "NAME",
		"virtual_machine.memory_bytes":              "--memory",
		"virtualMachine.memoryBytes":                "--memory",
		"virtual_machine.boot.kernel":               "--kernel",
		"virtual_machine.disks":                     "--disk",
		"virtual_machine.disks[0].size_bytes":       "--disk no. 1",
		"virtual_machine.network_interfaces[2].mac": "--network no. 3",
		"virtual_machine.disks[x]":                  "--disk",
		"page_size":                                 "",
		"":                                          "",
	} {
		if got := createFields.name(in); got != want {
			t.Errorf("name(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestInitLeavesNothing wants a `config init` that cannot write its document to
// leave nothing behind that would be in its own way.
func TestInitLeavesNothing(t *testing.T) {
	r := newRun(t)
	dir := filepath.Join(r.tmp, "later")
	args := []string{"config", "init", "--host-name", "rack1", "--out", filepath.Join(dir, "ashlar.yaml")}
	if code, _, errs := r.do(t.Context(), args...); code != fault.Failure || !strings.Contains(errs, "no such file") {
		t.Errorf("into a folder that is not there: %d, %s", code, errs)
	}
	if _, err := os.Stat(r.host.Dir.Path("rack1")); !os.IsNotExist(err) {
		t.Errorf("an authority is left behind: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := r.do(t.Context(), args...); code != fault.OK {
		t.Errorf("again, with the folder there: %d, %s", code, errs)
	}
}

// TestExpired has a command that succeeded at the last moment.
func TestExpired(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	<-ctx.Done()
	if err := late(ctx, "x", nil, time.Second); err != nil {
		t.Errorf("late(nil) = %v", err)
	}
	if err := late(ctx, "x", ctx.Err(), time.Second); fault.ExitCode(err) != fault.TimedOut {
		t.Errorf("late(%v) = %v", ctx.Err(), err)
	}
}

func TestNewUUID(t *testing.T) {
	a, b := newUUID(), newUUID()
	if a == b || len(a) != 36 || a[14] != '4' || !strings.ContainsRune("89ab", rune(a[19])) {
		t.Errorf("newUUID() = %s, %s", a, b)
	}
}

func TestCertificateNames(t *testing.T) {
	fl := &hostFlags{name: "rack1", address: "192.0.2.10/24", names: []string{"rack1.example", "rack1"}}
	got := fl.certificateNames("[2001:db8::1]:8443")
	if d := cmp.Diff([]string{"rack1", "2001:db8::1", "192.0.2.10", "rack1.example"}, got); d != "" {
		t.Errorf("certificateNames() (-want +got):\n%s", d)
	}
}

func TestContextNameOrder(t *testing.T) {
	env := map[string]string{}
	a := &app{IO: IO{Getenv: func(k string) string { return env[k] }}}
	if got := a.contextName(); got != "" {
		t.Errorf("contextName() = %q, want the current one", got)
	}
	env["ASHLAR_CONTEXT"] = "env"
	if got := a.contextName(); got != "env" {
		t.Errorf("contextName() = %q, want that of the environment", got)
	}
	a.context = "flag"
	if got := a.contextName(); got != "flag" {
		t.Errorf("contextName() = %q, want that of the flag", got)
	}
	if err := contexts.CheckName("../x"); err == nil {
		t.Error("CheckName takes a path")
	}
}

func TestParseCPUs(t *testing.T) {
	for in, want := range map[string][2]int32{
		"2": {2, 0}, "2,max=8": {2, 8}, "number=2,max=2": {2, 2}, "max=4,number=1": {1, 4},
		"": {}, "two": {}, "2,max=": {}, "2,max=x": {}, "2,least=1": {}, "99999999999": {}, "max=4": {},
	} {
		n, most, err := ParseCPUs(in)
		if got := [2]int32{n, most}; got != want || (err == nil) != (want[0] != 0) {
			t.Errorf("ParseCPUs(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}
