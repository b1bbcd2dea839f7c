package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ashlar-hv/ashlar/image-build/config"
	"github.com/ashlar-hv/ashlar/initramfs/cmdline"
	"github.com/ashlar-hv/ashlar/initramfs/console"
	"github.com/ashlar-hv/ashlar/initramfs/layout"
	"github.com/ashlar-hv/ashlar/initramfs/mounts"
	"github.com/ashlar-hv/ashlar/initramfs/power"
	"github.com/ashlar-hv/ashlar/initramfs/process"
	"github.com/ashlar-hv/ashlar/initramfs/step"
	"github.com/ashlar-hv/ashlar/initramfs/uevent"
)

// A machine is the host as init knows it.
type machine struct {
	log     *console.Log
	options cmdline.Options
	reaper  *process.Reaper
	hub     uevent.Hub
	// doc is the configuration; the defaults where there is none.
	doc        *config.Document
	identity   identity
	configNode string // the configuration partition; "" where there is none
	listener   *os.File
	// apiAnswers, and readyAfter that time since kernel entry.
	apiAnswers bool
	readyAfter time.Duration

	// down is closed when the machine goes down: nothing is started any more.
	down chan struct{}

	mu            sync.Mutex // guards what follows
	info          layout.HostInfo
	hostFile      string // where info is written for core
	core, control *process.Service

	ntpOnce sync.Once
}

func newMachine() *machine {
	doc := config.Default()
	doc.Disks = nil // nobody has asked for a disk to be used yet
	return &machine{doc: doc, down: make(chan struct{}), hostFile: layout.HostFile, info: layout.HostInfo{Version: version, Hostname: doc.Hostname, APIPort: doc.API.Port}}
}

// steps are the boot, in order.
func (m *machine) steps() []step.Step {
	return []step.Step{
		{Name: "cgroups", Deadline: 5 * time.Second, Run: m.cgroups},
		{Name: "clock", Deadline: 5 * time.Second, Run: m.clock},
		{Name: "devices", Deadline: 15 * time.Second, Run: m.devices},
		{Name: "configuration", Deadline: 10 * time.Second, Run: m.configuration},
		{Name: "network", Deadline: 15 * time.Second, Run: m.bringUpNetwork},
		{Name: "data", Deadline: 2 * time.Minute, Run: m.dataDisk},
		{Name: "core", Deadline: 30 * time.Second, Run: m.startCore},
		{Name: "control", Deadline: 10 * time.Second, Run: m.startControl},
		{Name: "API", Deadline: time.Minute, Run: m.waitForAPI},
	}
}

// run boots and then waits for ever. The console and processes need the mounts,
// so these come before all messages.
func (m *machine) run() {
	ignoreSignals()
	begin := time.Now()
	mountErr := mountAll()
	cmdlineErr := m.readCommandLine()
	m.log = console.Open()
	m.reaper = process.NewReaper()
	m.log.Printf("init", "Ashlar %s, kernel %s", version, kernelVersion())
	m.report(step.Report{Step: "mounts", Message: "done", Err: mountErr, Took: time.Since(begin)})
	m.settle(cmdlineErr)
	m.spawn("power", m.watchPower)
	m.spawn("uevents", m.watchDevices)
	m.spawn("rescue", func() { m.rescueOrNot(filepath.Dir(rescueShell)) })
	step.Run(context.Background(), m.steps(), m.report)
	m.summary()
	select {}
}

// mountAll does what nothing else can go before.
func mountAll() error {
	return errors.Join(mounts.PivotableRoot(), mounts.All(mounts.Table))
}

// readCommandLine comes before the first message: it says who else talks on
// the console.
func (m *machine) readCommandLine() error {
	b, err := os.ReadFile("/proc/cmdline")
	m.options = cmdline.Parse(string(b))
	if !m.options.Verbose {
		_ = mounts.Apply("/proc/sys", mounts.Quiet) // else the console is only noisier
	}
	return err
}

// settle makes the settings of the kernel that hold from now on.
func (m *machine) settle(cmdlineErr error) {
	if cmdlineErr != nil {
		m.problem("The kernel's command line cannot be read: %v.", cmdlineErr)
	}
	for _, word := range m.options.Unknown {
		m.problem("The kernel's command line has %q, which init does not know.", word)
	}
	if err := errors.Join(mounts.Apply("/proc/sys", mounts.Sysctls), mounts.Apply("/sys", mounts.Memory), mounts.Apply("/proc/self", mounts.LastEnded)); err != nil {
		m.log.Printf("mounts", "%v", err)
	}
	if err := power.CatchCtrlAltDel(); err != nil {
		m.log.Printf("power", "%v", err)
	}
	raiseLimits(m.log)
}

// raiseLimits allows as many descriptors as a host with many guests needs.
func raiseLimits(log *console.Log) {
	limit := unix.Rlimit{Cur: 1 << 16, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		log.Printf("init", "raise the limit of descriptors: %v", err)
	}
}

// report tells of a step that ended.
func (m *machine) report(r step.Report) {
	if r.Err == nil {
		m.log.Printf(r.Step, "%s (%d ms)", r.Message, r.Took.Milliseconds())
		return
	}
	for _, line := range strings.Split(r.Err.Error(), "\n") {
		m.log.Printf(r.Step, "failed: %s", line)
	}
	m.problem("%s%s.", about(r.Step), strings.TrimSuffix(strings.ReplaceAll(r.Err.Error(), "\n", "; "), "."))
}

// problem notes a sentence for the operator.
func (m *machine) problem(format string, args ...any) {
	sentence := fmt.Sprintf(format, args...)
	m.update(func(i *layout.HostInfo) { i.Problems = append(i.Problems, sentence) })
}

// withdraw takes back the problems that a step has reported.
func (m *machine) withdraw(step string) {
	m.update(func(i *layout.HostInfo) {
		// Others may still look at the old list.
		i.Problems = slices.DeleteFunc(slices.Clone(i.Problems), func(s string) bool { return strings.HasPrefix(s, about(step)) })
	})
}

// about begins the sentence of a problem that a step reports.
func about(step string) string { return capital(step) + ": " }

// spawn runs f beside everything else. A panic in it must not end PID 1.
func (m *machine) spawn(name string, f func()) {
	go func() {
		defer func() {
			if p := recover(); p != nil {
				m.log.Printf(name, "program error: %v", p)
				for line := range strings.Lines(string(debug.Stack())) {
					m.log.Kernel("ashlar: ", line[:len(line)-1])
				}
			}
		}()
		f()
	}()
}

func (m *machine) cgroups(context.Context) (step.Outcome, error) {
	return step.Outcome{Message: "done"}, mounts.Cgroups(layout.CgroupRoot, mounts.Groups)
}

func kernelVersion() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
