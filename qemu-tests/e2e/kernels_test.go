package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
)

// kernelVM describes a guest with a kernel of out/kernels.
func (h *host) kernelVM(t testing.TB, kernel string) *v1.VirtualMachine {
	t.Helper()
	h.upload(t, kernel, filepath.Join(top, "out/kernels", kernel))
	vm := testVM("")
	vm.Boot.Kernel = "images/" + kernel
	return vm
}

// TestDebianGenericKernel boots Debian's kernel for all machines, whose virtio
// drivers are modules: the small guest has a console, and no network device.
func TestDebianGenericKernel(t *testing.T) {
	h := sharedHost(t)
	vm := h.kernelVM(t, "generic")
	vm.Cpus, vm.MemoryBytes = 2, 256<<20
	h.create(t, "generic", vm)
	t.Cleanup(func() { h.remove(t, "generic") })
	h.boot(t, "generic")
	c := h.console(t, "generic")
	if line := c.expect("TESTGUEST ready", patience); !strings.Contains(line, "cpus=2") || !strings.Contains(line, "net=none") {
		t.Errorf("the guest says %q, want two CPUs and no network device", line)
	}
	if got := c.ask("read /proc/version"); !strings.Contains(got, "Debian") || strings.Contains(got, "cloud") {
		t.Errorf("/proc/version is %q, want that of Debian's generic kernel", got)
	}
	c.say("poweroff")
	h.waitStopped(t, "generic", v1.VirtualMachine_STOP_REASON_POWERED_OFF)
}

// TestDebianInstaller goes to the first question of Debian's installer.
func TestDebianInstaller(t *testing.T) {
	h := sharedHost(t)
	h.upload(t, "installer-initrd", filepath.Join(top, "out/kernels/installer-initrd.gz"))
	vm := h.kernelVM(t, "installer")
	vm.MemoryBytes = 1 << 30
	vm.Boot.Initramfs, vm.Boot.Cmdline = "images/installer-initrd", "console=ttyS0 quiet DEBIAN_FRONTEND=text"
	h.create(t, "installer", vm)
	t.Cleanup(func() { h.remove(t, "installer") })
	h.boot(t, "installer")
	c := h.console(t, "installer")
	c.prompt("Select a language", patience)
	c.prompt("Prompt:", patience)
	h.stop(t, "installer", true)
}

// TestIPXE starts iPXE in real mode. It gets an address by DHCP, fetches a script by
// HTTP and runs it.
func TestIPXE(t *testing.T) {
	h := sharedHost(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "#!ipxe\necho script=${net0/ip},${net0/gateway}\n")
	}))
	t.Cleanup(s.Close)
	vm := h.kernelVM(t, "ipxe.lkrn")
	vm.MemoryBytes = 256 << 20
	// 10.0.2.2 is this machine, as QEMU's user network shows it to the host.
	vm.Boot.Cmdline = fmt.Sprintf("dhcp && chain http://10.0.2.2:%d/script", s.Listener.Addr().(*net.TCPAddr).Port)
	h.create(t, "ipxe", vm)
	t.Cleanup(func() { h.remove(t, "ipxe") })
	h.boot(t, "ipxe")
	c := h.console(t, "ipxe")
	c.expect("Open Source Network Boot Firmware", patience)
	c.expect("ok", patience) // of "Configuring (net0 …)"
	address, gateway, ok := strings.Cut(strings.TrimPrefix(c.expect("script=", patience), "script="), ",")
	if want := h.vm(t, "ipxe").NetworkInterfaces[0].IpAddress; !ok || address != want || gateway == "" {
		t.Errorf("iPXE has address %q and gateway %q, the API says %q", address, gateway, want)
	}
	h.stop(t, "ipxe", true)
}
