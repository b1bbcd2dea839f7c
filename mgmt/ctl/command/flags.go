package command

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
	"github.com/ashlar-hv/ashlar/vmm/protocol"
)

// ParseDisk reads the value of --disk: IMAGE[,size=SIZE], or size=SIZE for an
// empty disk, either with limits behind it: [,bps=SIZE][,bps-burst=SIZE][,iops=N][,iops-burst=N].
func ParseDisk(s string) (*ashlarv1.Disk, error) {
	first, values, err := options(s, "image", "size", "bps", "bps-burst", "iops", "iops-burst")
	if err != nil {
		return nil, fmt.Errorf("disk %q: %w", s, err)
	}
	d := &ashlarv1.Disk{}
	if first != "" {
		d.Image = resource(images, first)
	}
	if v, ok := values["size"]; ok {
		if d.SizeBytes, err = size.Parse(v); err != nil {
			return nil, fmt.Errorf("disk %q: %w", s, err)
		}
	}
	if d.Image == "" && d.SizeBytes == 0 {
		return nil, fmt.Errorf("disk %q: name an image, or give an empty disk a size: size=4GiB", s)
	}
	if d.Limits, err = parseLimits(values); err != nil {
		return nil, fmt.Errorf("disk %q: %w", s, err)
	}
	return d, nil
}

// parseLimits reads what a disk may do in a second; nil where nothing is limited.
func parseLimits(values map[string]string) (*ashlarv1.DiskLimits, error) {
	l := &ashlarv1.DiskLimits{}
	given, err := readNumbers(values, []number{
		{"bps", &l.BytesPerSecond, size.Parse},
		{"bps-burst", &l.BurstBytes, size.Parse},
		{"iops", &l.OperationsPerSecond, parseCount},
		{"iops-burst", &l.BurstOperations, parseCount},
	})
	if !given || err != nil {
		return nil, err
	}
	return l, nil
}

// A number is an option, where its value goes, and how it is read.
type number struct {
	key  string
	to   *int64
	read func(string) (int64, error)
}

// readNumbers reads options that are numbers; given is whether one of them is not 0.
func readNumbers(values map[string]string, numbers []number) (given bool, err error) {
	for _, n := range numbers {
		v, ok := values[n.key]
		if !ok {
			continue
		}
		if *n.to, err = n.read(v); err != nil {
			return false, fmt.Errorf("%s: %w", n.key, err)
		}
		given = given || *n.to != 0
	}
	return given, nil
}

// parseCount reads a number from 0 on.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q: want a number from 0 on", s)
	}
	return int64(n), nil
}

// ParseNetwork reads the value of --network: NAME[,mac=ADDRESS][,link=up|down], with limits
// behind it: [,rx=SIZE][,rx-burst=SIZE][,rx-pps=N][,rx-pps-burst=N], and tx as rx.
func ParseNetwork(s string) (*ashlarv1.NetworkInterface, error) {
	first, values, err := options(s, "name", nicKeys()...)
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", s, err)
	}
	if first == "" {
		return nil, fmt.Errorf("network %q: name a network of the host; `ashlarctl host get` lists them", s)
	}
	n := &ashlarv1.NetworkInterface{Network: first}
	if v, ok := values["mac"]; ok {
		mac, err := net.ParseMAC(v)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return nil, fmt.Errorf("network %q: mac %q: want a unicast address such as 02:00:00:00:00:01", s, v)
		}
		n.MacAddress = mac.String()
	}
	if n.Limits, err = parseNICLimits(values); err != nil {
		return nil, fmt.Errorf("network %q: %w", s, err)
	}
	if v, ok := values["link"]; ok {
		if n.LinkDown, err = parseLink(v); err != nil {
			return nil, fmt.Errorf("network %q: %w", s, err)
		}
	}
	return n, nil
}

// memoryPages are the kinds of pages of --memory.
var memoryPages = map[string]ashlarv1.MemoryBacking_Pages{
	"":                                ashlarv1.MemoryBacking_PAGES_UNSPECIFIED,
	string(protocol.DefaultPages):     ashlarv1.MemoryBacking_PAGES_UNSPECIFIED,
	string(protocol.TransparentPages): ashlarv1.MemoryBacking_PAGES_TRANSPARENT,
	string(protocol.SmallPages):       ashlarv1.MemoryBacking_PAGES_4KIB,
	string(protocol.Pages2MiB):        ashlarv1.MemoryBacking_PAGES_2MIB,
	string(protocol.Pages1GiB):        ashlarv1.MemoryBacking_PAGES_1GIB,
}

// ParseMemory reads the value of --memory:
// SIZE[,max=SIZE][,hotplug=SIZE][,pages=default|transparent|4KiB|2MiB|1GiB][,populate=on|off]. It
// returns a virtual machine that has these fields alone: no backing where nothing is said of
// it.
func ParseMemory(s string) (*ashlarv1.VirtualMachine, error) {
	first, values, err := options(s, "size", "max", "hotplug", "pages", "populate")
	if err != nil {
		return nil, fmt.Errorf("memory %q: %w", s, err)
	}
	values["size"] = first
	vm := &ashlarv1.VirtualMachine{}
	for key, to := range map[string]*int64{"size": &vm.MemoryBytes, "max": &vm.MaxMemoryBytes, "hotplug": &vm.HotplugMemoryBytes} {
		v, ok := values[key]
		if !ok {
			continue
		}
		if *to, err = size.Parse(v); err != nil {
			return nil, err
		}
	}
	v, pagesSaid := values["pages"]
	if _, said := values["populate"]; !said && !pagesSaid {
		return vm, nil
	}
	pages, ok := memoryPages[v]
	if !ok {
		return nil, fmt.Errorf("memory %q: pages %q: want %s", s, v, strings.Join(protocol.AllPages(), ", "))
	}
	vm.MemoryBacking = &ashlarv1.MemoryBacking{Pages: pages}
	if vm.MemoryBacking.Populate, err = onOff(values, "populate"); err != nil {
		return nil, fmt.Errorf("memory %q: %w", s, err)
	}
	return vm, nil
}

// onOff reads an option that is on or off; off where it is missing.
func onOff(values map[string]string, key string) (bool, error) {
	switch v := values[key]; v {
	case "on":
		return true, nil
	case "", "off":
		return false, nil
	default:
		return false, fmt.Errorf("%s %q: want on or off", key, v)
	}
}

// ParseProcessor reads the value of --cpu:
// MODEL[,sockets=N][,cores=N][,threads=N][,hyperv=on|off][,poll=DURATION].
func ParseProcessor(s string) (*ashlarv1.Processor, error) {
	first, values, err := options(s, "model", "sockets", "cores", "threads", "hyperv", "poll")
	if err != nil {
		return nil, fmt.Errorf("cpu %q: %w", s, err)
	}
	if len(values) == 0 || first == "" && s == "" {
		return nil, errors.New("cpu: name a model, or say how many sockets, cores and threads")
	}
	p := &ashlarv1.Processor{Model: first}
	for key, field := range map[string]*int32{"sockets": &p.Sockets, "cores": &p.Cores, "threads": &p.Threads} {
		if v, ok := values[key]; ok {
			n, err := strconv.ParseUint(v, 10, 8)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("cpu %q: %s %q: want a number from 1 on", s, key, v)
			}
			*field = int32(n)
		}
	}
	if p.Hyperv, err = onOff(values, "hyperv"); err != nil {
		return nil, fmt.Errorf("cpu %q: %w", s, err)
	}
	if v, ok := values["poll"]; ok {
		d, err := time.ParseDuration(v)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("cpu %q: poll %q: want a time such as 50us, or 0s", s, v)
		}
		p.HaltPoll = durationpb.New(d)
	}
	return p, nil
}

// options splits FIRST,KEY=VALUE,…. FIRST may also be written with its own
// key, or be left out.
func options(s, firstKey string, keys ...string) (first string, values map[string]string, err error) {
	values = map[string]string{}
	for i, part := range strings.Split(s, ",") {
		key, value, assigned := strings.Cut(part, "=")
		switch {
		case !assigned && i == 0:
			key, value = firstKey, part
		case !assigned && part == "":
			return "", nil, errors.New("a part is empty: want NAME,KEY=VALUE")
		case !assigned:
			return "", nil, fmt.Errorf("%q: want KEY=VALUE", part)
		case value == "":
			return "", nil, fmt.Errorf("%s has no value", key)
		}
		if _, twice := values[key]; twice && values[key] != "" {
			return "", nil, fmt.Errorf("%s is given twice", key)
		}
		if key != firstKey && !slices.Contains(keys, key) {
			return "", nil, fmt.Errorf("%q is unknown: want %s", key, strings.Join(append([]string{firstKey}, keys...), " or "))
		}
		values[key] = value
	}
	return values[firstKey], values, nil
}
