package render

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	ashlarv1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/ctl/size"
)

// ID is a resource name without its collection: `demo` of
// `virtualMachines/demo`.
func ID(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// words turns an enum value into words: STATE_RUNNING without prefix STATE_ is
// `running`.
func words(value, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(value, prefix)), "_", " ")
}

// when is a time in UTC, or nothing.
func when(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.DateTime) + "Z"
}

// State is a virtual machine's state, with the reason where it has stopped.
func State(vm *ashlarv1.VirtualMachine) string {
	s := words(vm.GetState().String(), "STATE_")
	if Panicked(vm) {
		return s + " (panicked)"
	}
	if vm.GetState() != ashlarv1.VirtualMachine_STATE_STOPPED || vm.GetStopReason() == ashlarv1.VirtualMachine_STOP_REASON_UNSPECIFIED {
		return s
	}
	return s + " (" + Reason(vm) + ")"
}

// Reason is why a virtual machine has stopped, in words.
func Reason(vm *ashlarv1.VirtualMachine) string {
	return words(vm.GetStopReason().String(), "STOP_REASON_")
}

// VirtualMachines is a table with a line for each.
func VirtualMachines(vms []*ashlarv1.VirtualMachine) *Rows {
	r := &Rows{Header: []string{"NAME", "STATE", "CPUS", "MEMORY", "ADDRESS", "STARTED"}}
	for _, vm := range vms {
		var ips []string
		for _, n := range vm.GetNetworkInterfaces() {
			if n.GetIpAddress() != "" {
				ips = append(ips, n.GetIpAddress())
			}
		}
		r.Add(ID(vm.GetName()), State(vm), CPUCount(vm), size.Format(vm.GetMemoryBytes()),
			orDash(strings.Join(ips, ",")), orDash(when(vm.GetStartTime())))
	}
	return r
}

// VirtualMachine is everything about one.
func VirtualMachine(vm *ashlarv1.VirtualMachine) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(vm.GetName()))
	r.Add("State:", State(vm))
	if vm.GetStopMessage() != "" {
		r.Add("", vm.GetStopMessage())
	}
	for _, p := range vm.GetProblems() {
		r.Add("Problem:", p)
	}
	r.Add("To be running:", yesNo(vm.GetDesiredRunning()))
	r.Add("CPUs:", strings.Join(nonEmpty(cpus(vm), processor(vm.GetProcessor())), ", "))
	r.Add("Memory:", strings.Join(nonEmpty(size.Format(vm.GetMemoryBytes()), backing(vm.GetMemoryBacking()), plugged(vm)), ", "))
	if vm.GetBalloonBytes() > 0 {
		r.Add("Balloon:", size.Format(vm.GetBalloonBytes()))
	}
	numaNodes(r, vm.GetNumaNodes())
	placement(r, vm)
	r.Add("Kernel:", ID(vm.GetBoot().GetKernel()))
	if vm.GetBoot().GetInitramfs() != "" {
		r.Add("Initramfs:", ID(vm.GetBoot().GetInitramfs()))
	}
	r.Add("Command line:", vm.GetBoot().GetCmdline())
	for _, d := range vm.GetDisks() {
		r.Add(fmt.Sprintf("Disk %d:", d.GetNumber()), disk(d))
	}
	for _, n := range vm.GetNetworkInterfaces() {
		r.Add(fmt.Sprintf("Network %d:", n.GetNumber()), nic(n))
	}
	for _, d := range vm.GetDevices() {
		r.Add(fmt.Sprintf("Device %d:", d.GetNumber()), hostDevice(d))
	}
	if v := vm.GetVsock(); v != nil {
		r.Add("Vsock:", vsock(v))
	}
	if ports := vm.GetSerialPorts(); len(ports) > 0 {
		r.Add("Serial ports:", strings.Join(ports, ", "))
	}
	addBoard(r, vm)
	r.Add("Hot-plug:", fmt.Sprintf("%d slots", vm.GetHotplugSlots()))
	r.Add("Created:", when(vm.GetCreateTime()))
	if vm.GetStartTime() != nil {
		r.Add("Started:", when(vm.GetStartTime()))
	}
	r.Add("UID:", vm.GetUid())
	return r
}

// backing is what has been asked of the memory, "" where nothing has.
func backing(b *ashlarv1.MemoryBacking) string {
	pages := map[ashlarv1.MemoryBacking_Pages]string{
		ashlarv1.MemoryBacking_PAGES_TRANSPARENT: "transparent huge pages",
		ashlarv1.MemoryBacking_PAGES_4KIB:        "pages of 4KiB",
		ashlarv1.MemoryBacking_PAGES_2MIB:        "pages of 2MiB from the pool",
		ashlarv1.MemoryBacking_PAGES_1GIB:        "pages of 1GiB from the pool",
	}
	populated := ""
	if b.GetPopulate() {
		populated = "allocated before the start"
	}
	return strings.Join(nonEmpty(pages[b.GetPages()], populated), ", ")
}

// processor is what has been asked of the processors, "" where nothing has.
func processor(p *ashlarv1.Processor) string {
	var words []string
	if p.GetModel() != "" {
		words = append(words, "model "+p.GetModel())
	}
	for _, part := range []struct {
		n    int32
		what string
	}{{p.GetSockets(), "sockets"}, {p.GetCores(), "cores a socket"}, {p.GetThreads(), "threads a core"}} {
		if part.n > 0 {
			words = append(words, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	if p.GetHyperv() {
		words = append(words, "Hyper-V's interface")
	}
	if p.GetHaltPoll() != nil {
		words = append(words, "halt polling up to "+p.GetHaltPoll().AsDuration().String())
	}
	return strings.Join(words, ", ")
}

func disk(d *ashlarv1.Disk) string {
	from := "empty"
	if d.GetImage() != "" {
		from = "from " + ID(d.GetImage())
	}
	words := []string{from}
	if d.GetSizeBytes() != 0 {
		words = []string{size.Format(d.GetSizeBytes()), from}
	}
	l := d.GetLimits()
	if n := l.GetBytesPerSecond(); n > 0 {
		words = append(words, "at most "+size.Format(n)+" a second"+burst(l.GetBurstBytes(), size.Format))
	}
	if n := l.GetOperationsPerSecond(); n > 0 {
		words = append(words, fmt.Sprintf("at most %d requests a second", n)+
			burst(l.GetBurstOperations(), func(n int64) string { return strconv.FormatInt(n, 10) }))
	}
	return strings.Join(words, ", ")
}

// burst is what a limit has besides.
func burst(n int64, format func(int64) string) string {
	if n == 0 {
		return ""
	}
	return " (" + format(n) + " at once)"
}

// Images is a table with a line for each.
func Images(images []*ashlarv1.Image) *Rows {
	r := &Rows{Header: []string{"NAME", "STATE", "SIZE", "CREATED", "SHA256"}}
	for _, i := range images {
		r.Add(ID(i.GetName()), imageState(i), size.Format(i.GetSizeBytes()), orDash(when(i.GetCreateTime())), i.GetSha256()[:min(12, len(i.GetSha256()))])
	}
	return r
}

// Image is everything about one.
func Image(i *ashlarv1.Image) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(i.GetName()))
	r.Add("State:", imageState(i))
	r.Add("Size:", fmt.Sprintf("%s (%d bytes)", size.Format(i.GetSizeBytes()), i.GetSizeBytes()))
	r.Add("SHA-256:", i.GetSha256())
	r.Add("Created:", when(i.GetCreateTime()))
	r.Add("UID:", i.GetUid())
	return r
}

func imageState(i *ashlarv1.Image) string {
	s := words(i.GetState().String(), "STATE_")
	if i.GetState() == ashlarv1.Image_STATE_UPLOADING && i.GetSizeBytes() > 0 {
		s += fmt.Sprintf(" (%d%%)", int(float64(i.GetUploadedBytes())*100/float64(i.GetSizeBytes())))
	}
	return s
}

// Host is everything about the host.
func Host(h *ashlarv1.Host) *Rows {
	r := &Rows{}
	r.Add("Host name:", h.GetHostname())
	r.Add("Version:", h.GetVersion())
	r.Add("Kernel:", h.GetKernelVersion())
	r.Add("Up since:", when(h.GetBootTime()))
	if d := h.GetBootDuration(); d != nil {
		r.Add("Came up in:", d.AsDuration().Round(10*time.Millisecond).String())
	}
	r.Add("CPU:", fmt.Sprintf("%d x %s", h.GetCpus(), h.GetCpuModel()))
	r.Add("Memory:", fmt.Sprintf("%s, %s available", size.Format(h.GetMemoryBytes()), size.Format(h.GetMemoryAvailableBytes())))
	r.Add("Pool:", pool(h))
	r.Add("Addresses:", strings.Join(h.GetAddresses(), ", "))
	r.Add("Guest networks:", strings.Join(h.GetNetworks(), ", "))
	r.Add("KVM:", yesNo(h.GetKvm()))
	r.Add("IOMMU:", yesNo(h.GetIommu()))
	r.Add("Secure Boot:", yesNo(h.GetSecureBoot()))
	for _, p := range h.GetProblems() {
		r.Add("Problem:", p)
	}
	return r
}

func pool(h *ashlarv1.Host) string {
	device := h.GetPoolDevice()
	if device == "" {
		device = "in memory only: guests and images are lost at power-off"
	}
	return fmt.Sprintf("%s of %s free (%s)", size.Format(h.GetPoolFreeBytes()), size.Format(h.GetPoolBytes()), device)
}

// Operations is a table with a line for each.
func Operations(ops []*ashlarv1.Operation) *Rows {
	r := &Rows{Header: []string{"NAME", "KIND", "TARGET", "STATE", "CREATED", "MESSAGE"}}
	for _, o := range ops {
		r.Add(ID(o.GetName()), o.GetKind(), o.GetTarget(), OperationState(o), orDash(when(o.GetCreateTime())), operationText(o))
	}
	return r
}

// Operation is everything about one.
func Operation(o *ashlarv1.Operation) *Rows {
	r := &Rows{}
	r.Add("Name:", ID(o.GetName()))
	r.Add("Kind:", o.GetKind())
	r.Add("Target:", o.GetTarget())
	r.Add("State:", OperationState(o))
	if t := operationText(o); t != "" {
		r.Add("Message:", t)
	}
	r.Add("Created:", when(o.GetCreateTime()))
	if o.GetEndTime() != nil {
		r.Add("Ended:", when(o.GetEndTime()))
	}
	return r
}

// OperationState is how far an operation is, in a word.
func OperationState(o *ashlarv1.Operation) string {
	switch {
	case o.GetError() != nil:
		return "failed"
	case o.GetDone():
		return "done"
	}
	return strconv.Itoa(int(o.GetProgressPercent())) + "%"
}

func operationText(o *ashlarv1.Operation) string {
	if e := o.GetError(); e != nil {
		return strings.Join(nonEmpty(e.GetCode(), e.GetMessage()), ": ")
	}
	return o.GetMessage()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func nonEmpty(ss ...string) []string {
	var out []string
	for _, s := range ss {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
